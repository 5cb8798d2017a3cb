"""What-if price books over HTTP."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from tallystick.alerts.config_yaml import ConfigError
from tallystick.alerts.config_yaml import read as read_yaml
from tallystick.attribution.config_file import ConfigFileError
from tallystick.attribution.moments import end_of_day, moment
from tallystick.attribution.prices_file import UserPrices, read_prices
from tallystick.attribution.spend import Ask, UnknownDimension
from tallystick.attribution.what_if import Answer, BadVariant, Question, Variant, discount, replacement, what_if
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.caged import caged
from tallystick.server.money import Money
from tallystick.server.operators import askers_only, operators_only

_LONGEST: Final = 1 << 20
_MOST_GROUPS: Final = 100_000
_TIER: Final = r"^[\w.:-]*$"
_FIGURES: Final = (
    *("calls", "tokens", "cost_usd", "as_if_usd", "difference_usd"),
    *("priced_calls", "as_if_priced_calls", "priced_tokens", "as_if_priced_tokens"),
)

DEFINITION: Final[Mapping[str, str]] = {
    "cost_usd": "sum of the ledger's entries, corrections included",
    "as_if_usd": "the same calls, net of voids, at the supposed prices, each rounded to 12 decimals; allocations and trueups as they are",
    "difference_usd": "as_if_usd - cost_usd; null where one of them is unknown",
    "priced_calls": "calls that have a cost in the ledger; as_if_priced_calls: at the supposed prices",
}


class WhatIfQuestion(BaseModel):
    """What is supposed, of which calls. prices: the text of a YAML file with the key `prices`, instead of the server's; for operators."""

    model_config = ConfigDict(extra="forbid")

    since: str = Field("30d", description="An age or a time, UTC if no zone.", examples=["2026-10-01"])
    until: str | None = Field(None, description="Exclusive; null: until now.", examples=["2026-11-01"])
    by: str = Field("model", description="What to group by; `total` is one sum.", examples=["model", "customer,feature"])
    where: list[str] = Field(default_factory=list, description="DIMENSION=VALUE", examples=[["customer=acme"]])
    model: list[str] = Field(
        default_factory=list, description="OLD=NEW; OLD may be a pattern.", examples=[["claude-opus-*=claude-haiku-4-5"]]
    )
    tier: str = Field(
        "", max_length=64, pattern=_TIER, description="Service tier of all calls.", examples=["batch", "flex", "priority"]
    )
    discount: list[str] = Field(
        default_factory=list, description="PROVIDER=PERCENT off public list prices.", examples=[["openai=20%"]]
    )
    prices: str | None = Field(
        None, max_length=_LONGEST, examples=["prices:\n  discounts:\n    - {provider: openai, percent: 15}\n"]
    )
    limit: int | None = Field(None, ge=1, le=_MOST_GROUPS, description="Most groups.")


class WhatIfFigures(BaseModel):
    """Amounts are strings; null is unknown."""

    calls: int
    tokens: int
    cost_usd: Money | None = Field(examples=["12.500000000000"])
    as_if_usd: Money | None = Field(examples=["6.250000000000"])
    difference_usd: Money | None = Field(examples=["-6.250000000000"])
    priced_calls: int
    as_if_priced_calls: int
    priced_tokens: int
    as_if_priced_tokens: int


class WhatIfRow(WhatIfFigures):
    """group: value of each dimension, as text."""

    group: dict[str, str] = Field(examples=[{"model": "gpt-5"}])


class WhatIfAnswer(BaseModel):
    """The largest differences first. groups: how many there are; total: of all of them. notes: what must be known to read it right."""

    since: datetime
    until: datetime
    rows: list[WhatIfRow]
    groups: int
    total: WhatIfFigures | None
    notes: list[str]
    definition: dict[str, str]


class BadSupposition(PayloadError):
    """Nothing was priced."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(400, "bad_supposition", message, hint or "docs/what-if.md has what can be supposed.")


Words = Annotated[list[str] | None, Query()]


def router(store: Store, door: Door, asking: Asking, prices: Callable[[], UserPrices]) -> APIRouter:
    """Routes /v1/whatif. prices: the server's own, as they are now."""
    routes = APIRouter(prefix="/v1/whatif", tags=["attribution"])

    async def answered(request: Request, tenant: str | None, question: WhatIfQuestion) -> WhatIfAnswer:
        def work(mark: str) -> WhatIfAnswer:
            return answer(caged(store, tenant, mark), question, prices(), public=tenant is not None)

        return await asking.ask(request, work)

    @routes.get("", summary="What calls would have cost at other prices", **askers_only(door))
    async def get(
        request: Request,
        *,
        since: str = "30d",
        until: str | None = None,
        by: str = "model",
        where: Words = None,
        model: Words = None,
        tier: Annotated[str, Query(max_length=64, pattern=_TIER)] = "",
        discount: Words = None,
        limit: Annotated[int | None, Query(ge=1, le=_MOST_GROUPS)] = None,
    ) -> WhatIfAnswer:
        tenant = door.reader(request.headers.get("authorization"))
        question = WhatIfQuestion(
            since=since,
            until=until,
            by=by,
            where=where or [],
            model=model or [],
            tier=tier,
            discount=discount or [],
            prices=None,
            limit=limit,
        )
        return await answered(request, tenant, question)

    @routes.post("", summary="The same, also at the prices of a file", **operators_only(door))
    async def post(request: Request, question: WhatIfQuestion) -> WhatIfAnswer:
        return await answered(request, None, question)

    return routes


def answer(ask: Ask, question: WhatIfQuestion, prices: UserPrices, *, public: bool) -> WhatIfAnswer:
    """prices: what the supposition starts from. public: see Variant. Raises BadSupposition, BadQuery."""
    now = time.time_ns()
    try:
        since = moment(question.since, now)
        until = end_of_day(now) if question.until is None else moment(question.until, now)
        if since >= until:
            raise BadSupposition("`since` isn't before `until`.")
        variant = Variant(
            _own(question.prices).with_measured(prices.measured) if question.prices is not None else prices,
            tuple(map(replacement, question.model)),
            question.tier,
            tuple(map(discount, question.discount)),
            public,
        )
        dimensions = tuple(dict.fromkeys(name.strip() for name in question.by.split(",") if name.strip() not in {"", "total"}))
        asked = Question(since, until, dimensions, _named(question.where), question.limit)
        found = what_if(ask, variant, asked)
    except BadVariant as error:
        raise BadSupposition(error.message, error.hint) from None
    except (UnknownDimension, ConfigFileError, ValueError) as error:
        raise BadSupposition(str(error)) from None
    return _told(found, asked)


def _own(text: str) -> UserPrices:
    try:
        # Counts what aliases stand for, before anything is built of them.
        read_yaml(text, "prices", {}, filled=lambda _: False)
    except ConfigError as error:
        raise BadSupposition(str(error)) from None
    return read_prices(text, "prices")


def _named(where: Iterable[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in where]
    if wrong := next((one for one, equals, _ in pairs if not one or not equals), None):
        raise BadSupposition(f"{wrong!r} in `where` isn't DIMENSION=VALUE.")
    return {name: value for name, _, value in pairs}


def _told(found: Answer, asked: Question) -> WhatIfAnswer:
    rows = [
        WhatIfRow(
            group={name: "" if row[name] is None else str(row[name]) for name in asked.dimensions},
            **{name: row[name] for name in _FIGURES},
        )
        for row in found.rows
    ]
    first = found.rows[0] if found.rows else None
    return WhatIfAnswer(
        since=_at(asked.since_ns),
        until=_at(asked.until_ns),
        rows=rows,
        groups=first["all_groups"] if first else 0,
        total=WhatIfFigures(**{name: first[f"all_{name}"] for name in _FIGURES}) if first else None,
        notes=list(found.notes),
        definition=dict(DEFINITION),
    )


def _at(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 10**9, UTC)
