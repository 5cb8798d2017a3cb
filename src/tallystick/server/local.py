"""The ledger in its directory, or on its ClickHouse server, without a server of ours."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tallystick.attribution.focus.question import Form, Question
from tallystick.attribution.prices_file import UserPrices
from tallystick.attribution.sql_formats import Format, file
from tallystick.attribution.user_sql import READER_SETTINGS, Result, run
from tallystick.ingest.migrate import migrate, require_schema
from tallystick.ingest.store import Store
from tallystick.ingest.turns import open_turns
from tallystick.server.corrections import Desk, open_corrections
from tallystick.server.focus_api import asked, file_of, found_days
from tallystick.server.measured_prices import PresentBook
from tallystick.server.recorded_price import recorded_price
from tallystick.server.stores import open_ledger
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.server.allocations import AllocationDesk
    from tallystick.server.what_if_api import WhatIfAnswer, WhatIfQuestion


class LocalLedger:
    """Answers the same SQL as the server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.corrections = open_corrections(store, open_turns(store))
        """What the server makes its corrections by."""

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
        from tallystick.server.caged import caged
        from tallystick.server.what_if_api import answer

        return answer(caged(self._store, None), question, self.prices(prices).present(), public=False)

    def focus_days(self, *, since: str, until: str | None = None, rows: bool = False, **options: str) -> list[dict[str, Any]]:
        """As `Client.focus_days`. Raises PayloadError."""
        question = _focus_question(since, until, **options)
        return [day.model_dump(mode="json") for day in found_days(self._store, None, question, rows).days]

    def focus(self, *, since: str, until: str | None = None, format: str = "parquet", **options: str) -> Iterator[bytes]:
        """As `Client.focus`. Raises PayloadError."""
        return file_of(self._store, None, _focus_question(since, until, **options), cast(Form, format))

    def allocation_desk(self, config: Path | None) -> "AllocationDesk":
        """Allocations as the server's /v1/allocations makes them, by the rules of a configuration file."""
        from tallystick.server.allocations import AllocationDesk, base_ask

        return AllocationDesk(self.corrections, base_ask(self._store), config)

    def reconcile(self, question: Mapping[str, Any], author: str) -> dict[str, Any]:
        """As `Client.reconcile`. Raises PayloadError, ValidationError."""
        from tallystick.server.reconcile_api import ReconcileQuestion, ask_of, reconciled

        found = reconciled(ask_of(self._store), self.corrections, ReconcileQuestion.model_validate(question), author)
        return found.model_dump(mode="json")

    def desk(self, prices: UserPrices) -> Desk:
        """Corrections as the server's /v1/corrections makes them; `prices` are those to reprice by."""
        return Desk(self.corrections, self.prices(prices).book)

    def prices(self, prices: UserPrices) -> PresentBook:
        """The price book of this ledger, measured prices in it; `prices` are a file's."""
        return PresentBook(self._store, prices)


@contextmanager
def open_local(settings: Settings) -> Iterator[LocalLedger]:
    """The ledger of the data directory, brought to the present schema, or of the ClickHouse server that is named. Raises StoreError."""
    with closing(open_ledger(settings, patience_s=0)) as store:
        if settings.clickhouse is None:
            migrate(store, None)
        else:
            require_schema(store)
        yield LocalLedger(store)


def _focus_question(since: str, until: str | None, version: str = "1.2", as_of: str = "", **options: Any) -> Question:
    return asked(version, since, until, as_of=datetime.fromisoformat(as_of) if as_of else None, **options)
