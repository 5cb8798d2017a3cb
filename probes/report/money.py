"""What was measured, in money: the price of an engine's tokens, how it depends on use, and where an API is cheaper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tallystick.probes.loading import LoadedRun
from tallystick.probes.money.breakeven import BreakEven
from tallystick.probes.money.measured_price import BUCKETS, MeasuredPrice, NoPrice
from tallystick.probes.money.run_price import price_of
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.plots import Plot, Point, Rule, Series
from tallystick.probes.report.shown import Shown
from tallystick.probes.report.ticks import number

DEFINITIONS: Final[Mapping[str, str]] = {
    "USD a million tokens": "cost of an hour / (3600 × tokens a second) × 1,000,000, at the highest load within the latency target / utilisation",
    "utilisation": "share of its capacity that an engine is used to; what it costs while idle is in the price of what it does",
    "u*": "cost of an hour / what the API charges for what the engine does in an hour at its capacity: above it the engine is cheaper, never over 100 %",
    "own from": "tokens a month from which on as many engines as they take cost less than the API",
    "API": "what the API would charge for these calls, each priced as the ledger prices it",
}
_SHARES: Final = (5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_STEPS: Final = 12
"""Engines of a staircase."""


@dataclass(frozen=True)
class Money:
    """By run id: what a run's tokens cost, why it has no price, and how it stands against APIs."""

    prices: Mapping[str, MeasuredPrice] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    breakevens: Mapping[str, BreakEven] = field(default_factory=dict)


def priced(runs: Sequence[LoadedRun]) -> Money:
    """Prices of engines that are never idle, of runs whose entry says what the hardware costs."""
    found: dict[str, MeasuredPrice] = {}
    lacking: dict[str, str] = {}
    for run in runs:
        if run.cost is None:
            continue
        try:
            found[run.info.id] = price_of(run.stages, run.summaries, run.cost, run.target, watts=run.info.machine.get("watts"))
        except NoPrice as error:
            lacking[run.info.id] = str(error)
    return Money(found, lacking)


def prices(runs: Sequence[Shown], measured: Mapping[str, MeasuredPrice], lacking: Mapping[str, str]) -> list[Block]:
    """measured: by run id. lacking: of those without a price, why."""
    rows, series, how = [], [], []
    notes = [f"{run.name}: no price: {why}" for run in runs if (why := lacking.get(run.run.info.id))]
    for run in runs:
        price = measured.get(run.run.info.id)
        if price is None:
            continue
        full = price.at(Decimal(1), "full")
        rows.append(
            [
                run.name,
                usd(price.hour.usd_per_hour),
                price.capacity.at,
                *(usd(price.per_million[bucket]) for bucket in BUCKETS),
                usd(price.all_tokens),
                f"{price.utilisation:.0%} ({price.utilisation_source})",
            ]
        )
        points = [Point(share, float(full.all_tokens) * 100 / share) for share in _SHARES]
        series.append(Series(run.name, points, run.colour, marks=False))
        how.append([run.name, "all tokens", price.definition])
        how += [[run.name, f"{share.name}, {usd(share.usd_per_hour)} USD/h", share.how] for share in price.hour.shares]
        how += [[run.name, "to be known", note] for note in price.notes]
    if not rows:
        return [Block(texts=notes)] if notes else []
    header = ("run", "USD/h", "at", *(f"{bucket}, USD/M" for bucket in BUCKETS), "all tokens, USD/M", "utilisation")
    alt = "The fewer of its hours an engine is used, the dearer its tokens."
    return [
        Block(
            "Measured price", notes, table=Table("measured price, USD a million tokens", header, rows), definitions=DEFINITIONS
        ),
        Block(
            "Price over utilisation",
            plot=Plot("Price over utilisation", alt, "utilisation, %", "USD a million tokens", series, log_y=True),
            table=Table(
                "USD a million tokens at utilisations",
                ("run", *(f"{share} %" for share in _SHARES)),
                [[one.name, *(usd(Decimal(str(point.y))) for point in one.points)] for one in series],
            ),
        ),
    ]


def breakeven(name: str, found: BreakEven) -> list[Block]:
    """Of one run against its APIs."""
    columns = ("API", "API USD/M", "API USD/month", "own USD/month", "u*", "own from", "verdict")
    rows = [
        [
            one.model.name,
            usd(one.usd_per_million),
            usd(one.usd_per_month),
            usd(found.usd_per_month),
            "–" if one.utilisation is None else "never" if one.utilisation > 1 else f"{number(float(one.utilisation) * 100)} %",
            "never" if one.wins_from is None else f"{one.wins_from / 1_000_000:,.0f} M tokens a month",
            one.verdict,
        ]
        for one in found.against
    ]
    demand = found.demand
    rule = {"own": "own engines", "api": "an API", None: "neither"}[found.rule_of_thumb]
    texts = [
        f"{demand.calls:,} calls of {demand.tokens:,} tokens stand for {demand.tokens_per_month / 1_000_000:,.1f} million tokens a month;"
        f" at their peak {demand.peak:.2f} times the mean. Engines that takes: {found.fleet.engines:,}, {found.fleet.utilisation:.1%} used.",
        f"The rule of thumb (an API under 10 million tokens a month, own engines over 100 million) says {rule}.",
        *found.notes,
    ]
    blocks = [
        Block(
            f"{name}: break-even",
            texts,
            table=Table("own engines against APIs", columns, rows, wide=True),
            definitions=DEFINITIONS,
        )
    ]
    if any(one.usd_per_million for one in found.against):
        blocks.append(_staircase(name, found))
    for one in found.against:
        if one.cases:
            cases = [
                [
                    case.input,
                    case.changed,
                    usd(case.own_usd),
                    usd(case.api_usd),
                    "turns" if case.flips else "holds",
                    "–" if case.turns_at is None else f"× {number(float(case.turns_at))}",
                ]
                for case in one.cases
            ]
            caption = f"{name} against {one.model.name}: what the verdict hangs on"
            blocks.append(
                Block(table=Table(caption, ("changed", "to", "own USD/month", "API USD/month", "verdict", "turns at"), cases))
            )
    return blocks


def _staircase(name: str, found: BreakEven) -> Block:
    """Up to a few engines beyond the present volume: each step is one more."""
    engine_usd = found.price.hour.usd_per_month
    a_step = found.demand.tokens_per_month / found.need.engines
    highest = max(_STEPS, min(3 * found.fleet.engines, 10 * _STEPS))
    own = [Point(0.0, float(engine_usd))]
    for engines in range(1, highest):
        own.append(Point(float(a_step * engines / 1_000_000), float(engine_usd * engines)))
        own.append(Point(float(a_step * engines / 1_000_000), float(engine_usd * (engines + 1))))
    end = float(a_step * highest / 1_000_000)
    own.append(Point(end, float(engine_usd * highest)))
    top = 1.3 * float(engine_usd * highest)
    series = [Series("own", own, 1, "step", marks=False)]
    for index, one in enumerate(found.against):
        if one.usd_per_million:
            last = min(end, top / float(one.usd_per_million))
            points = [Point(0, 0), Point(last, float(one.usd_per_million) * last)]
            series.append(Series(one.model.name, points, 2 + index % 4, marks=False))
    present = found.demand.tokens_per_month / 1_000_000
    rules = [Rule("x", float(present), "these calls")] if float(present) <= end else []
    rows = [
        [
            f"{step.tokens_per_month / 1_000_000:,.1f}",
            f"{step.engines:,}",
            f"{step.utilisation:.1%}",
            usd(step.own_usd),
            *(usd(step.api_usd.get(one.model.name)) for one in found.against),
        ]
        for step in found.staircase
    ]
    return Block(
        f"{name}: cost over volume",
        plot=Plot(
            f"Cost of a month over volume, {name}", "Own engines are a staircase: each step is one engine more; APIs are lines.",
            "million tokens a month", "USD a month", series, rules, top=top,
        ),
        table=Table(
            "by volume",
            ("million tokens a month", "engines", "utilisation", "own USD", *(f"{one.model.name} USD" for one in found.against)),
            rows,
        ),
    )  # fmt: skip


def usd(amount: Decimal | None) -> str:
    """Dollars with as many decimals as it takes to see something."""
    if amount is None:
        return "unpriced"
    decimals = 2 if amount == 0 or abs(amount) >= 1 else 4 if abs(amount) >= Decimal("0.01") else 8
    return f"{amount:,.{decimals}f}"
