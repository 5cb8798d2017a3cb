"""The ledger in its directory, without a server."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallystick.attribution.focus.question import SETTINGS, Day, Form, Question, Tally, days, stream, tally
from tallystick.attribution.prices_file import UserPrices
from tallystick.attribution.sql_formats import Format, file
from tallystick.attribution.user_sql import READER_SETTINGS, Result, run
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import Store, open_store
from tallystick.server.recorded_price import recorded_price

if TYPE_CHECKING:
    from tallystick.server.what_if_api import WhatIfAnswer, WhatIfQuestion


class LocalLedger:
    """Answers the same SQL as the server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def sql(self, query: str, params: Mapping[str, Any] | None = None, tenant: str | None = None) -> Result:
        """Run one query over `charges`; None sees all tenants. Raises BadQuery, QueryTooExpensive."""
        with self._store.reader(tenant, READER_SETTINGS) as reader:
            return run(reader, query, params)

    def sql_file(self, query: str, params: Mapping[str, Any] | None = None, *, format: str) -> bytes:
        """The answer to one query as a file, as `Client.sql_file`. Raises BadQuery, QueryTooExpensive."""
        with self._store.reader(None, READER_SETTINGS) as reader:
            return file(reader, query, params, Format(format))

    def price(self, price_id: str) -> dict[str, str] | None:
        """What a price id of the ledger stands for, as the server's /v1/price answers; None if it never had it."""
        return recorded_price(self._store, None, price_id)

    def what_if(self, question: "WhatIfQuestion", prices: UserPrices) -> "WhatIfAnswer":
        """What calls would have cost at other prices; `prices` are those it starts from. Raises BadSupposition, BadQuery."""
        from tallystick.server.what_if_api import answer, caged

        return answer(caged(self._store, None), question, prices, public=False)

    def focus_days(self, question: Question) -> list[Day]:
        """What the ledger holds of each day."""
        with self._store.reader(None, SETTINGS) as reader:
            return days(reader, question)

    def focus_tally(self, question: Question) -> Tally:
        """Rows and sum of a FOCUS file."""
        with self._store.reader(None, SETTINGS) as reader:
            return tally(reader, question)

    def focus(self, question: Question, form: Form) -> Iterator[bytes]:
        """A FOCUS file, in pieces."""
        with self._store.reader(None, SETTINGS) as reader:
            yield from stream(reader, question, form)


@contextmanager
def open_local(data: Path, retention_days: int | None = None) -> Iterator[LocalLedger]:
    """The directory's ledger, brought to the present schema. Raises DataDirectoryInUse, StoreUnavailable, NewerData."""
    with open_store(data) as store:
        migrate(store.client(), retention_days)
        yield LocalLedger(store)
