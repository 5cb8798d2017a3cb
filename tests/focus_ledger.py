"""Ledgers to export as FOCUS: entries of every kind, and the files read back."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import pyarrow.parquet as parquet
from clickhouse_connect.driver.client import Client

from tallystick.attribution.focus.columns import columns

PRICE: Final = "genai-prices@test,openai,gpt-test,from=always"
OWN: Final = "file@0123abcd,openai,gpt-5,from=always"
RATES: Final = tuple(
    Decimal(rate).scaleb(-6) for rate in ("1.25", "0.125", "1.5625", "2.5", "10", "12", "40.3", "80.000001", "3.3333333", "100")
)
"""USD a token in the order of table `prices`; a call costs 0.0001 USD."""

_BUCKETS: Final = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens",
    "audio_input_tokens", "audio_output_tokens", "image_input_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row of the ledger. tokens: of a call, by bucket; priced: its cost is worked out from RATES, cost: or this."""

    at: datetime = datetime(2026, 10, 3, 10, 30, tzinfo=UTC)
    entry: str = "call"
    calls: int = 1
    tokens: Mapping[str, int] = field(default_factory=lambda: {"input_tokens": 1000, "output_tokens": 100})
    priced: bool = True
    cost: Decimal | None = None
    price_id: str = PRICE
    usage_source: str = "provider"
    customer: str = "acme"
    feature: str = "chat"
    tags: Mapping[str, str] = field(default_factory=dict)
    provider: str = "openai"
    model: str = "gpt-test"
    entered_at: datetime = datetime(2026, 10, 3, 10, 31, tzinfo=UTC)
    reason: str = ""
    correction: str = ""

    def count(self, name: str) -> int:
        """Tokens of a bucket."""
        return self.tokens.get(name, 0)

    def cost_usd(self) -> Decimal | None:
        """As schema/sql/cost.sql: tokens times rates, rounded once to 12 decimals, with the sign of a void."""
        if not self.priced:
            return None
        if self.cost is not None:
            return self.cost
        whole, out, reasoning = self.count("input_tokens"), self.count("output_tokens"), self.count("reasoning_tokens")
        charged = (
            max(whole - self.count("audio_input_tokens") - self.count("image_input_tokens"), 0),
            self.count("cache_read_tokens"),
            self.count("cache_write_5m_tokens"),
            self.count("cache_write_1h_tokens"),
            max(out - reasoning - self.count("audio_output_tokens"), 0),
            min(reasoning, out),
            min(self.count("audio_input_tokens"), whole),
            min(self.count("audio_output_tokens"), max(out - reasoning, 0)),
            min(self.count("image_input_tokens"), max(whole - self.count("audio_input_tokens"), 0)),
            1,
        )
        exact = sum((tokens * rate for tokens, rate in zip(charged, RATES, strict=True)), Decimal(0))
        return self.calls * exact.quantize(Decimal("1e-12"), ROUND_HALF_EVEN)


OCTOBER_3: Final = datetime(2026, 10, 3, 10, 30, tzinfo=UTC)
NOVEMBER_5: Final = datetime(2026, 11, 5, 9, 0, tzinfo=UTC)
EVERY_KIND: Final = (
    Entry(tokens={name: 1000 + at for at, name in enumerate(_BUCKETS)}),
    Entry(tokens={name: 1000 + at for at, name in enumerate(_BUCKETS)} | {"input_tokens": 5001, "output_tokens": 7003}),
    *(Entry(tokens={"input_tokens": 3 + at, "cache_read_tokens": 7, "output_tokens": 1}, tags={"plan": "pro"}) for at in range(7)),
    Entry(at=OCTOBER_3.replace(hour=23, minute=59), customer="", feature="=cmd|' /C calc'!A0", tags={"=1+1": "@SUM(A1)"}),
    Entry(customer="+1+cmd", provider="vllm", model="-llama", price_id="", priced=False),
    Entry(tokens={}, usage_source="missing", priced=False, price_id=""),
    Entry(tokens={}, usage_source="none", price_id="", cost=Decimal(0)),
    Entry(tokens={"input_tokens": 500, "output_tokens": 50}, price_id=OWN, model="gpt-5", cost=Decimal("0.001")),
    Entry(entry="void", calls=-1, reason="another span tells of this call"),
    Entry(entry="void", calls=-1, entered_at=NOVEMBER_5, reason="duplicates", correction="v1"),
    Entry(entry="reprice", calls=0, tokens={}, cost=Decimal("-0.000400000001"), reason="wrong price", correction="r1"),
    Entry(entry="reprice", calls=0, tokens={}, cost=Decimal("0.0007"), entered_at=NOVEMBER_5, reason="wrong price", correction="r2"),
    Entry(entry="reprice", calls=-1, priced=False, price_id="", entered_at=NOVEMBER_5, reason="had none", correction="r3"),
    Entry(entry="reprice", calls=1, entered_at=NOVEMBER_5, reason="had none", correction="r3"),
    Entry(entry="trueup", calls=0, tokens={}, cost=Decimal("0.5"), customer="", feature="", price_id="", entered_at=NOVEMBER_5,
          reason="invoice 2026-10", correction="t1"),
    Entry(entry="allocation", calls=0, tokens={}, cost=Decimal("1.25"), provider="", model="", price_id="", entered_at=NOVEMBER_5,
          reason="overhead 20 %", correction="a1"),
)  # fmt: skip
"""Calls of 3 October 2026 with every kind of entry, price and bad name."""


def enter(client: Client, tenant: str, entries: Iterable[Entry]) -> None:
    """Put entries into the ledger of a tenant."""
    names = (
        "entry", "calls", "tenant", "customer", "feature", "tags", "provider", "request_model", "response_model", "operation",
        "usage_source", "started_at", "price_id", "cost_usd", "trace_id", "span_id", "entered_at", "reason", "correction", *_BUCKETS,
    )  # fmt: skip
    rows = [
        (
            one.entry, one.calls, tenant, one.customer, one.feature, dict(one.tags), one.provider, one.model, one.model,
            "chat" if one.model else "", one.usage_source, one.at, one.price_id, one.cost_usd(), bytes(16), bytes(8), one.entered_at,
            one.reason, one.correction,
            *(one.calls * one.tokens[name] if one.calls and name in one.tokens else None for name in _BUCKETS),
        )
        for one in entries
    ]  # fmt: skip
    client.insert("ledger", rows, column_names=names)


def enter_prices(client: Client) -> None:
    """PRICE and OWN, as an older book has them: OWN is dearer than the public list's price of gpt-5."""
    since = datetime(1970, 1, 1, tzinfo=UTC)
    rows = [
        ("test", "openai", price_id, price_id, "", since, (price_id,), RATES, (), (), "openai/x", "test", "", "")
        for price_id in (PRICE, OWN)
    ]
    client.insert("prices", rows)


def forget(client: Client, tenant: str) -> None:
    """Take it all out again."""
    for table, condition in (("ledger", "tenant = {tenant:String}"), ("prices", "book = 'test'")):
        client.command(f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 1", parameters={"tenant": tenant})


def at(one: Entry, **changes: Any) -> Entry:
    """It with changes."""
    return replace(one, **changes)


def read(content: bytes, form: str, version: str) -> list[dict[str, Any]]:
    """Rows of a file: Decimal, datetime, int, bool, str, parsed JSON, None."""
    kinds = {column.name: column.type for column in columns(version)}
    if form == "parquet":
        rows = parquet.read_table(io.BytesIO(content)).to_pylist()
        return [
            {name: json.loads(value) if kinds[name] == "JSON" and value is not None else value for name, value in row.items()}
            for row in rows
        ]
    return [
        {name: _parsed(kinds[name], text) for name, text in row.items()}
        for row in csv.DictReader(io.StringIO(content.decode(), newline=""))
    ]


def _parsed(kind: str, text: str) -> Any:
    if text == "":
        return None
    match kind:
        case "Decimal":
            return Decimal(text)
        case "Integer":
            return int(text)
        case "Boolean":
            return {"true": True, "false": False}[text]
        case "Date/Time":
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        case "JSON":
            return json.loads(text)
        case _:
            return text


def total(rows: Sequence[Mapping[str, Any]], name: str = "BilledCost") -> Decimal:
    """The sum of a column."""
    return sum((Decimal(row[name]) for row in rows), Decimal(0))
