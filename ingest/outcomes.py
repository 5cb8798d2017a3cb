"""Outcomes as they are reported: what came of calls, and what it earned. See docs/outcomes.md."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import error_name

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MOST: Final = 10_000
"""Outcomes in one request."""

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

_Text = Annotated[str, StringConstraints(max_length=256)]
_Needed = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ReportedOutcome(BaseModel):
    """One thing that came of calls: a ticket resolved, a cart paid, an answer thrown away.

    It is tied to the calls of its trace, without one to those of its session; without either it is counted but has no cost.
    """

    model_config = ConfigDict(extra="forbid")

    id: _Needed = Field(description="Yours. The same id again replaces what was reported before.", examples=["ticket-4711"])
    outcome: _Needed = Field(description="What came of it.", examples=["resolved"])
    success: bool = Field(description="Whether that is what was wanted.", examples=[True])
    at: datetime | None = Field(
        None, description="When; without a zone it is UTC. Left out: when it is received.", examples=["2026-11-20T12:00:00Z"]
    )
    revenue_usd: Decimal | None = Field(
        None, max_digits=18, decimal_places=12, description="What it earned; left out is unknown, not 0.", examples=["2.50"]
    )
    trace_id: Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{32})?$")] = Field(
        "", description="32 hex digits.", examples=["0af7651916cd43dd8448eb211c80319c"]
    )
    session: _Text = Field("", description="As in the scope of the calls.", examples=["chat-81"])
    customer: _Text = Field("", examples=["acme"])
    feature: _Text = Field("", examples=["support"])
    agent: _Text = ""
    tags: dict[_Needed, _Text] = Field(default_factory=dict, max_length=64, examples=[{"plan": "pro"}])

    @field_validator("at")
    @classmethod
    def _in_utc(cls, at: datetime | None) -> datetime | None:
        if at is None:
            return None
        aware = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        if not _EARLIEST <= aware < _LATEST:
            raise ValueError("outside 1970 to 2199")
        return aware


@dataclass(frozen=True)
class Rejected:
    """index: from 0, in the request. field: '' if it is about all of the outcome."""

    index: int
    field: str
    message: str


class Reported(NamedTuple):
    """What of a request can be kept, and what can't."""

    outcomes: list[ReportedOutcome]
    rejected: list[Rejected]


def read_outcomes(body: bytes) -> Reported:
    """A JSON object, or an array of them. Raises PayloadError where it is neither, or nothing of it can be kept."""
    try:
        told: Any = json.loads(body, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise PayloadError(400, "malformed", f"The body isn't JSON: {error}.", _NOTHING_KEPT) from None
    told = [told] if isinstance(told, dict) else told
    if not isinstance(told, list) or not told:
        raise PayloadError(400, "malformed", "The body is neither an outcome nor an array of some.", _NOTHING_KEPT)
    if len(told) > MOST:
        raise PayloadError(413, "too_many", f"{len(told):,} outcomes in one request.", f"Send at most {MOST:,} at once.")
    outcomes: list[ReportedOutcome] = []
    rejected: list[Rejected] = []
    for index, one in enumerate(told):
        try:
            outcomes.append(ReportedOutcome.model_validate(one))
        except ValidationError as error:
            rejected += [Rejected(index, *_said(problem)) for problem in error.errors(include_url=False, include_input=False)]
    if not outcomes:
        first = rejected[0]
        where = f"outcome {first.index}{', ' + first.field if first.field else ''}"
        raise PayloadError(422, "bad_outcomes", f"{where}: {first.message}.", _NOTHING_KEPT)
    return Reported(outcomes, rejected)


def write_outcomes(client: "Client", tenant: str, outcomes: Sequence[ReportedOutcome], now: datetime) -> None:
    """On return they are on disk. now: when they were received; of two with an id that is the same, too, the engine keeps the last.

    Raises StoreUnavailable.
    """
    try:
        client.raw_insert("reported_outcomes", None, _lines(tenant, outcomes, now), fmt="JSONEachRow")
    except ClickHouseError as error:
        raise StoreUnavailable(error_name(error)) from error


_NOTHING_KEPT: Final = "Nothing of it was kept. docs/outcomes.md has every field."


def _lines(tenant: str, outcomes: Iterable[ReportedOutcome], now: datetime) -> bytes:
    rows = (
        {
            **one.model_dump(exclude={"revenue_usd", "at", "success"}),
            "tenant": tenant,
            "at": _time(one.at or now),
            "success": int(one.success),
            "revenue_usd": None if one.revenue_usd is None else f"{one.revenue_usd:f}",
            "trace_id": one.trace_id.lower(),
            "entered_at": _time(now),
        }
        for one in outcomes
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S.%f}"


def _said(problem: Any) -> tuple[str, str]:
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(field, ReportedOutcome.model_fields, n=1)
        return field, f"no such field{f': did you mean {close[0]}?' if close else ''}"
    return field, str(problem["msg"]).removeprefix("Value error, ")
