"""What the server answers, for programs: money is Decimal, unknown is None, times are aware."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, Self


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Signed sums of entries; what each is, `Spend.definition` says. Shares are 0 to 1, None where there is nothing to have a share of."""

    calls: int
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    calls_priced: float | None
    tokens_priced: float | None


@dataclass(frozen=True, kw_only=True)
class SpendGroup(Figures):
    """by: dimension → value. share: of the cost of all groups."""

    by: Mapping[str, str]
    share: float | None


@dataclass(frozen=True, kw_only=True)
class SpendTotal(Figures):
    """Of all groups, those included that weren't asked for. groups: how many there are."""

    groups: int


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Spend in [since, until) by dimensions: by time if grouped by time, else the dearest first."""

    since: datetime
    until: datetime
    definition: Mapping[str, str]
    groups: tuple[SpendGroup, ...]
    total: SpendTotal


@dataclass(frozen=True, kw_only=True)
class Charge:
    """An entry of the ledger. docs/charges.md describes each field. Times are cut to microseconds."""

    entry: Literal["call", "void", "reprice", "allocation", "trueup"]
    calls: int
    tenant: str
    customer: str
    feature: str
    agent: str
    team: str
    user: str
    session: str
    service: str
    environment: str
    tags: Mapping[str, str]
    provider: str
    request_model: str
    response_model: str
    operation: str
    service_tier: str
    streamed: bool | None
    status: Literal["ok", "error", "cancelled"]
    error_type: str
    cache_hit: str
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_5m_tokens: int | None
    cache_write_1h_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    audio_input_tokens: int | None
    audio_output_tokens: int | None
    image_input_tokens: int | None
    usage_source: Literal["provider", "estimated", "partial", "missing", "none"]
    started_at: datetime
    ended_at: datetime
    ttft_ms: float | None
    ttft_kind: str
    tpot_ms: float | None
    price_id: str
    cost_usd: Decimal | None
    reported_cost_usd: Decimal | None
    trace_id: str
    span_id: str
    response_id: str
    entered_at: datetime
    reason: str
    correction: str

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Of the API's JSON; fields that this version doesn't know are left out."""
        read = {field.name: told[field.name] for field in fields(cls)}
        return cls(**{**read, **{name: money(read[name]) for name in _MONEY}, **{name: time(read[name]) for name in _TIMES}})


@dataclass(frozen=True, kw_only=True)
class DimensionValue:
    """A value of a dimension, and what it came to. cost_usd: None where nothing is priced."""

    value: str
    calls: int
    cost_usd: Decimal | None


_MONEY: Final = ("cost_usd", "reported_cost_usd")
_TIMES: Final = ("started_at", "ended_at", "entered_at")


def spend(pages: list[Mapping[str, Any]], limit: int | None) -> Spend:
    """Of all pages of the API's JSON, of which there is one at least, up to `limit` groups."""
    first = pages[0]
    groups = [row for page in pages for row in page["rows"]][:limit]
    return Spend(
        since=time(first["since"]),
        until=time(first["until"]),
        definition=first["definition"],
        groups=tuple(SpendGroup(**{**row, "cost_usd": money(row["cost_usd"])}) for row in groups),
        total=SpendTotal(**{**first["total"], "cost_usd": money(first["total"]["cost_usd"])}),
    )


def money(told: str | None) -> Decimal | None:
    """Exact, None where it is unknown."""
    return None if told is None else Decimal(told)


def time(told: str) -> datetime:
    """Aware; nanoseconds are cut to microseconds."""
    return datetime.fromisoformat(told)
