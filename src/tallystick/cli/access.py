"""How commands reach the ledger: through the server that is named or that holds the directory, else in the directory itself."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tallystick.cli.failure import Failure
from tallystick.client import Client, Result, result
from tallystick.settings import DEFAULT_URL, Settings

if TYPE_CHECKING:
    from tallystick.attribution.prices_file import UserPrices
    from tallystick.server.corrections import Desk
    from tallystick.server.local import LocalLedger

SERVER_FILE = "server.json"
"""In the data directory while `up` holds it: `{"url": …, "pid": …}`."""


class Ledger(Protocol):
    """Something that answers SQL over `charges`, and knows what each was priced by."""

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> Result:
        """Run one query; `params` bind to its `{name:Type}`."""
        ...

    def sql_file(self, query: str, params: Mapping[str, Any] | None = None, *, format: str) -> bytes:
        """The answer to one query as a file: `csv`, `ndjson`, `arrow` or `parquet`."""
        ...

    def price(self, price_id: str) -> dict[str, str] | None:
        """What a price id of the ledger stands for: columns of schema/sql/price_by_id.sql as text; None if it has none such."""
        ...

    def what_if(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What calls would have cost at other prices: WhatIfQuestion → WhatIfAnswer of server/what_if_api.py, as JSON has them."""
        ...

    def allocations(self) -> dict[str, Any]:
        """AllocationsAnswer of server/allocations.py, as JSON has it."""
        ...

    def allocate(self, rule: str, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """AllocationQuestion → AllocationAnswer."""
        ...

    def focus_days(self, *, since: str, until: str | None = None, rows: bool = False, **options: str) -> list[dict[str, Any]]:
        """What the ledger holds of each day: FocusDay of server/focus_api.py, as JSON has it."""
        ...

    def focus(self, *, since: str, until: str | None = None, format: str = "parquet", **options: str) -> Iterator[bytes]:
        """A FOCUS file, in pieces."""
        ...

    def reprice(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """RepriceQuestion → RepriceAnswer of server/corrections.py, as JSON has them; so with the others."""
        ...

    def void(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """VoidQuestion → VoidAnswer."""
        ...

    def void_duplicates(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Period → VoidAnswer."""
        ...

    def undo_correction(self, id: str, reason: str, *, who: str = "") -> dict[str, Any]:
        """The RunAnswer of what undoes it."""
        ...

    def corrections(self, limit: int = 100) -> list[dict[str, Any]]:
        """RunAnswers, the newest first."""
        ...

    def correction(self, id: str) -> dict[str, Any]:
        """A RunAnswer."""
        ...

    def reconcile(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """ReconcileQuestion → ReconcileAnswer of server/reconcile_api.py, as JSON has them."""
        ...

    def enter_price(self, entry: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """PriceEntry → PriceInForce of server/measured_prices.py, as JSON has them."""
        ...

    def measured_prices(self) -> list[dict[str, Any]]:
        """PriceEntered, in the order in which later ones replace earlier ones."""
        ...


@contextmanager
def connect(settings: Settings) -> Iterator[Ledger]:
    """The ledger, for as long as the block runs. Raises Failure where there is none, and what Client raises."""
    url = server_url(settings)
    if url is not None:
        with Client(url, settings.key) as client:
            yield client
        return
    if settings.clickhouse is None and not settings.data.is_dir():
        raise Failure(
            f"no ledger: {settings.data} doesn't exist and no server is named",
            "start one with `tallystick up`, try `tallystick demo`, or name one with --data or --url",
        )
    from tallystick.server.local import open_local

    if settings.config is not None:
        # The engine moves into its directory.
        settings = replace(settings, config=settings.config.absolute())
    with open_local(settings) as ledger:
        yield _Local(ledger, settings)


@contextmanager
def running(settings: Settings) -> Iterator[Client]:
    """The server, for as long as the block runs: for what only a server does. Raises Failure where none runs, and what Client raises."""
    url = server_url(settings)
    if url is None:
        where = f"on {settings.data}" if settings.data.is_dir() else f"at {DEFAULT_URL}"
        raise Failure(f"no server runs {where}", "budgets are a server's: start it with `tallystick up`, or name one with --url")
    with Client(url, settings.key) as client:
        yield client


class _Local:
    """The directory's own answers, told as the server's are."""

    def __init__(self, ledger: "LocalLedger", settings: Settings) -> None:
        self._ledger = ledger
        self._config = settings.config

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> Result:
        from tallystick.attribution.user_sql import BadQuery

        try:
            found = self._ledger.sql(query, params)
        except BadQuery as error:
            raise Failure(error.message, error.hint) from None
        return result(((column.name, column.type) for column in found.columns), found.rows, found.elapsed_ms)

    def sql_file(self, query: str, params: Mapping[str, Any] | None = None, *, format: str) -> bytes:
        from tallystick.attribution.user_sql import BadQuery

        try:
            return self._ledger.sql_file(query, params, format=format)
        except BadQuery as error:
            raise Failure(error.message, error.hint) from None

    def price(self, price_id: str) -> dict[str, str] | None:
        return self._ledger.price(price_id)

    def what_if(self, question: Mapping[str, Any]) -> dict[str, Any]:
        from tallystick.server.what_if_api import WhatIfQuestion

        with _told():
            return self._ledger.what_if(WhatIfQuestion.model_validate(question), self._own()).model_dump(mode="json")

    def allocations(self) -> dict[str, Any]:
        with _told():
            return self._ledger.allocation_desk(self._config).all().model_dump(mode="json")

    def allocate(self, rule: str, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        from tallystick.server.allocations import AllocationQuestion

        with _told():
            asked = AllocationQuestion.model_validate(question)
            return self._ledger.allocation_desk(self._config).allocate(rule, asked, who or "local").model_dump(mode="json")

    def focus_days(self, *, since: str, until: str | None = None, rows: bool = False, **options: str) -> list[dict[str, Any]]:
        with _told():
            return self._ledger.focus_days(since=since, until=until, rows=rows, **options)

    def focus(self, *, since: str, until: str | None = None, format: str = "parquet", **options: str) -> Iterator[bytes]:
        with _told():
            yield from self._ledger.focus(since=since, until=until, format=format, **options)

    def reprice(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        from tallystick.server.corrections import RepriceQuestion

        with _told():
            return self._desk().reprice(RepriceQuestion.model_validate(question), who or "local").model_dump(mode="json")

    def void(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        from tallystick.server.corrections import VoidQuestion

        with _told():
            return self._desk().void(VoidQuestion.model_validate(question), who or "local").model_dump(mode="json")

    def void_duplicates(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        from tallystick.server.corrections import Period

        with _told():
            return self._desk().void_told_twice(Period.model_validate(question), who or "local").model_dump(mode="json")

    def undo_correction(self, id: str, reason: str, *, who: str = "") -> dict[str, Any]:
        from tallystick.server.corrections import UndoQuestion

        with _told():
            return self._desk().undo(id, UndoQuestion(reason=reason), who or "local").model_dump(mode="json")

    def corrections(self, limit: int = 100) -> list[dict[str, Any]]:
        with _told():
            return [run.model_dump(mode="json") for run in self._desk().runs(limit).corrections]

    def correction(self, id: str) -> dict[str, Any]:
        with _told():
            return self._desk().one(id).model_dump(mode="json")

    def reconcile(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        with _told():
            return self._ledger.reconcile(question, who or "local")

    def enter_price(self, entry: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        from tallystick.server.measured_prices import PriceEntry

        with _told():
            made = self._ledger.prices(self._own()).enter(PriceEntry.model_validate(entry), who or "local", datetime.now(UTC))
            return made.model_dump(mode="json")

    def measured_prices(self) -> list[dict[str, Any]]:
        with _told():
            return [one.model_dump(mode="json") for one in self._ledger.prices(self._own()).entered()]

    def _desk(self) -> "Desk":
        return self._ledger.desk(self._own())

    def _own(self) -> "UserPrices":
        from tallystick.attribution.prices_file import UserPrices, load_prices_file

        return load_prices_file(self._config) if self._config else UserPrices()


@contextmanager
def _told() -> Iterator[None]:
    from pydantic import ValidationError

    from tallystick.attribution.config_file import ConfigFileError
    from tallystick.attribution.user_sql import BadQuery
    from tallystick.ingest.payload import PayloadError

    try:
        yield
    except (PayloadError, BadQuery) as error:
        raise Failure(error.message, error.hint) from None
    except ConfigFileError as error:
        raise Failure(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise Failure(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "nothing was entered") from None


def server_url(settings: Settings) -> str | None:
    """The server that is named, else the one that holds the data directory, else None.

    Where there is no such directory either, a server at the usual address is meant. A ledger on a ClickHouse server is asked there.
    """
    if settings.url is not None:
        return settings.url
    if settings.clickhouse is not None:
        return None
    url = _holder(settings.data) if settings.data.is_dir() else DEFAULT_URL
    if url is None:
        return None
    with Client(url) as client:
        return url if client.healthy() else None


def sending_url(settings: Settings) -> str:
    """Where spans go: the server that is named or holds the directory, else the usual address."""
    return server_url(settings) or DEFAULT_URL


def _holder(data: Path) -> str | None:
    try:
        url = json.loads((data / SERVER_FILE).read_bytes())["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None
