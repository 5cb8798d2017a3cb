"""Prices that probes measured, in the ledger's database, and the price book that has them: always the present one."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import MeasuredPrice, UserPrices
from tallystick.attribution.sql_files import insert_json
from tallystick.ingest.errors import StoreError, StoreUnavailable
from tallystick.ingest.store import Store, error_name, read_sql
from tallystick.ingest.writer import Item, Prices, Written
from tallystick.schema.models import Seen

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

log = logging.getLogger(__name__)

FRESH_S: Final = 60.0
"""After which other processes' prices are looked for."""

_COLUMNS: Final = (
    "provider", "model", "valid_from", "entered_at", "run", "input", "cache_read", "output", "definition", "entered_by",
)  # fmt: skip

Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=24, decimal_places=18, allow_inf_nan=False)]


class PriceEntry(BaseModel):
    """A measured price, to be entered. USD for a million tokens. definition: how it came about."""

    model_config = ConfigDict(extra="forbid")

    provider: str = Field(min_length=1, max_length=100, pattern=r"^[^\s,+*?\[\]]+$", examples=["self"])
    model: str = Field(min_length=1, max_length=200, pattern=r"^[^\s,*?\[\]]+$", examples=["qwen3-8b"])
    valid_from: AwareDatetime = Field(examples=["2026-11-21T00:00:00Z"])
    run: str = Field(min_length=1, max_length=100, pattern=r"^[\w.:-]+$", examples=["20261121T163000-f32-3fa9"])
    input: Usd = Field(examples=["0.21"])
    cache_read: Usd = Field(examples=["0.02"])
    output: Usd = Field(examples=["0.84"])
    definition: str = Field(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")

    @field_validator("valid_from")
    @classmethod
    def _in_utc(cls, at: datetime) -> datetime:
        if not 1970 <= at.astimezone(UTC).year < 2200:
            raise ValueError("outside 1970 to 2199")
        return at.astimezone(UTC)


class PriceEntered(PriceEntry):
    """As it stands."""

    entered_at: datetime
    entered_by: str


class PriceInForce(PriceEntered):
    """What was entered. price_id: by which the model is priced now; the file's, if that prices it."""

    price_id: str


class PresentBook:
    """The file's prices over those of the ledger's database, which are read again when they are a minute old. For any thread.

    Where they can't be read, what was read last holds; the first reading raises StoreUnavailable.
    """

    def __init__(self, store: Store, prices: UserPrices, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._file, self._clock = store, prices, clock
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._read_at: float | None = None
        self._entered: list[PriceEntered] = []
        self._prices = prices
        self._book: PriceBook | None = None

    def present(self) -> UserPrices:
        """All stated prices."""
        with self._lock:
            self._refresh()
            return self._prices

    def book(self) -> PriceBook:
        """The same book until prices change."""
        with self._lock:
            self._refresh()
            if self._book is None:
                self._book = PriceBook(self._prices)
            return self._book

    def entered(self) -> list[PriceEntered]:
        """Every price that was entered, in the order in which later ones replace earlier ones."""
        with self._lock:
            self._refresh()
            return list(self._entered)

    def enter(self, entry: PriceEntry, author: str, now: datetime) -> PriceInForce:
        """Append; on return this process prices by it, others within a minute. Raises StoreUnavailable."""
        made = PriceEntered(**entry.model_dump(), entered_at=now, entered_by=author)
        with self._lock:
            try:
                insert_json(self._connected(), "measured_prices", [{name: _as_text(getattr(made, name)) for name in _COLUMNS}])
            except ClickHouseError as error:
                raise StoreUnavailable(error_name(error)) from error
            self._read_at = None
        rows = self.book().rows([Seen(entry.provider, entry.model, "", "")])
        return PriceInForce(
            **made.model_dump(), price_id=next((row.price_ids[0] for row in reversed(rows) if row.valid_from <= now), "")
        )

    def _refresh(self) -> None:
        now = self._clock()
        if self._read_at is not None and now - self._read_at < FRESH_S:
            return
        try:
            rows = self._connected().query(read_sql("measured_prices")).result_rows
        except (ClickHouseError, StoreError) as error:
            self._client = None
            if self._book is None and self._read_at is None:
                raise StoreUnavailable(error_name(error) if isinstance(error, ClickHouseError) else str(error)) from error
            log.warning("measured prices can't be read, those of before hold: %s", type(error).__name__)
            self._read_at = now
            return
        self._read_at = now
        entered = [_entered(row) for row in rows]
        if entered != self._entered:
            self._entered = entered
            self._prices = self._file.with_measured(MeasuredPrice.entered(vars(one)) for one in entered)
            self._book = None

    def _connected(self) -> "Client":
        if self._client is None:
            self._client = self._store.client()
        return self._client


class _Writer(Protocol):
    def price_by(self, prices: Prices, /) -> None: ...

    def write(self, items: Sequence[Item], /) -> Written: ...


class PricedWriter:
    """A writer whose every batch is priced by the present book."""

    def __init__(self, writer: _Writer, book: PresentBook) -> None:
        self._writer, self._book = writer, book

    def write(self, items: Sequence[Item]) -> Written:
        """As Writer.write."""
        self._writer.price_by(self._book.book())
        return self._writer.write(items)


def _as_text(value: object) -> str:
    match value:
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)


def _entered(row: Sequence[Any]) -> PriceEntered:
    found = dict(zip(_COLUMNS, row, strict=True))
    # Some engines hand times out without their zone.
    times = {name: found[name].replace(tzinfo=UTC) for name in ("valid_from", "entered_at")}
    return PriceEntered.model_construct(**found | times)
