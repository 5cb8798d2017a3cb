"""What made a budget's spend, for those that are about to be announced: what grew, which requests stand out, how much has a price."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from tallystick.alerts.model import Driver, Measure, Outlier, Period, Spend
from tallystick.alerts.spend import Ask, Wanted, spends
from tallystick.alerts.spend_sql import TOKENS, Bound, dimension_sql, during, filled, instant_sql

_MADE_OF: Final = ("customer", "feature", "agent", "model", "team")
_TOLD: Final = 5
_LEAST_CALLS: Final = 20
"""Of fewer calls nothing is known to be usual."""
_LEAST_TOKENS: Final = 10_000
"""A call of fewer tokens drives no spend, however unusual it is."""


@dataclass(frozen=True)
class Announced:
    """A budget, in a period, for one of its values (""), that is about to be told of. before: the period before, if it is to be compared."""

    wanted: Wanted
    value: str
    before: Period | None

    @property
    def alone(self) -> Wanted:
        """The value as a scope of its own."""
        fixed = {self.wanted.each: (self.value,)} if self.wanted.each else {}
        return replace(self.wanted, scope={**self.wanted.scope, **fixed}, each=None)


@dataclass(frozen=True)
class Details:
    """What a message tells besides the figure."""

    spend: Spend
    """With all counts."""
    drivers: tuple[Driver, ...]
    outliers: tuple[Outlier, ...]


@dataclass(frozen=True)
class Part:
    """What a value of a dimension spent in the period so far, and in the same stretch of the last."""

    dimension: str
    value: str
    spent: Decimal
    before: Decimal


@dataclass(frozen=True)
class Usual:
    """Tokens of a model's calls in a scope: the quartiles and the most."""

    calls: int
    quartiles: tuple[float, float, float]
    most: int


def details(ask: Ask, announced: Sequence[Announced], now: datetime) -> list[Details]:
    """In that order. Asks up to four times, however many there are."""
    if not announced:
        return []
    numbered = [replace(one.alone, budget=str(number)) for number, one in enumerate(announced)]
    totals = {budget: found[0] for (budget, _), found in spends(ask, numbered, full=True).items()}
    parts = _parts(ask, announced, now)
    outliers = _outliers(ask, announced, now)
    return [
        Details(
            spend := totals[str(number)],
            rank(parts[number], spend.of(one.wanted.measure), compared=one.before is not None),
            tuple(outliers[number]),
        )
        for number, one in enumerate(announced)
    ]


def rank(parts: Iterable[Part], total: Decimal, *, compared: bool, limit: int = _TOLD) -> tuple[Driver, ...]:
    """The parts that grew most, then the largest. A dimension with one value only tells nothing. compared: whether `before` is known."""
    parts = [part for part in parts if part.spent or part.before]
    values = Counter(part.dimension for part in parts)
    telling = [part for part in parts if values[part.dimension] > 1 and part.spent > 0]
    telling.sort(key=lambda part: (part.before - part.spent if compared else 0, -part.spent, part.dimension, part.value))
    return tuple(
        Driver(
            part.dimension, part.value, part.spent, part.before if compared else None, part.spent / total if total else Decimal(0)
        )
        for part in telling[:limit]
    )


def beyond(usual: Usual) -> int | None:
    """A call with more tokens than this stands out: five times the median, and five times the interquartile range above the upper quartile.

    Both are robust: a few huge calls among many don't move them. Tukey's outer fence (1977) stands at three ranges; token counts have
    longer tails than his. None where too little is known.
    """
    if usual.calls < _LEAST_CALLS:
        return None
    lower, middle, upper = usual.quartiles
    return max(_LEAST_TOKENS, round(5 * middle), round(upper + 5 * (upper - lower)))


@dataclass(frozen=True)
class _Alike:
    """Announcements that differ only in the values of `fixed`: one arm answers for all. several: dimensions with a choice of values."""

    fixed: tuple[str, ...]
    several: tuple[tuple[str, tuple[str, ...]], ...]
    period: Period
    before: Period | None
    measure: Measure


def _alike(announced: Sequence[Announced]) -> dict[_Alike, dict[tuple[str, ...], list[int]]]:
    """Classes, the values of `fixed` in them, and which announcements have these."""
    classes: dict[_Alike, dict[tuple[str, ...], list[int]]] = {}
    for index, one in enumerate(announced):
        scope = one.alone.scope
        fixed = tuple(sorted(dimension for dimension, values in scope.items() if len(values) == 1))
        several = tuple(sorted((dimension, values) for dimension, values in scope.items() if len(values) > 1))
        alike = _Alike(fixed, several, one.wanted.period, one.before, one.wanted.measure)
        classes.setdefault(alike, {}).setdefault(tuple(scope[dimension][0] for dimension in fixed), []).append(index)
    return classes


def _within(alike: _Alike, values: Iterable[tuple[str, ...]], bind: Bound) -> str:
    allowed = {**dict(zip(alike.fixed, zip(*values, strict=True), strict=True)), **dict(alike.several)}
    return "".join(
        f" AND {dimension_sql(name, bind)} IN {bind(sorted(set(of)), 'Array(String)')}" for name, of in sorted(allowed.items())
    )


def _parts(ask: Ask, announced: Sequence[Announced], now: datetime) -> list[list[Part]]:
    found: list[list[Part]] = [[] for _ in announced]
    classes = list(_alike(announced).items())
    bind = Bound()
    arms, free = [], []
    for number, (alike, values) in enumerate(classes):
        free.append([name for name in _MADE_OF if name not in alike.fixed])
        if not free[-1]:
            continue
        scope, dimensions = ([dimension_sql(name, bind) for name in names] for names in (alike.fixed, free[-1]))
        start, end = alike.period.start, min(now, alike.period.end)
        within = during(start, end, bind)
        if alike.before:
            within = (
                f"({within} OR {during(alike.before.start, min(alike.before.start + (end - start), alike.before.end), bind)})"
            )
        arms.append(
            filled(
                "drivers",
                arm=str(number),
                scope=", ".join(scope),
                dimensions=", ".join(dimensions),
                figure={Measure.COST: "cost_usd", Measure.TOKENS: TOKENS, Measure.CALLS: "calls"}[alike.measure],
                start=instant_sql(start, bind),
                conditions=within + _within(alike, values, bind),
                sets=", ".join(f"({', '.join([*scope, dimension])})" for dimension in dimensions),
            )
        )
    for arm, scope, mask, value, spent, before in ask("\nUNION ALL\n".join(arms), bind.params) if arms else ():
        (place,) = (place for place in range(len(value)) if not mask >> (len(value) - 1 - place) & 1)
        part = Part(free[arm][place], value[place], Decimal(spent or 0), Decimal(before or 0))
        for index in classes[arm][1].get(tuple(scope), ()):
            found[index].append(part)
    return found


def _outliers(ask: Ask, announced: Sequence[Announced], now: datetime) -> list[list[Outlier]]:
    found: list[list[Outlier]] = [[] for _ in announced]
    usual = _usual(ask, announced, now)
    bind = Bound()
    arms = []
    for number, (one, models) in enumerate(zip(announced, usual, strict=True)):
        limits = {model: limit for model, of in models.items() if (limit := beyond(of)) is not None and of.most > limit}
        if not limits:
            continue
        (alike, values), *_ = _alike([one]).items()
        arms.append(
            filled(
                "outliers",
                arm=str(number),
                model=dimension_sql("model", bind),
                tokens=f"({TOKENS})",
                models=bind(list(limits), "Array(String)"),
                limits=bind(list(limits.values()), "Array(Int64)"),
                conditions=during(alike.period.start, min(now, alike.period.end), bind) + _within(alike, values, bind),
            )
        )
    if arms:
        for number, trace, model, tokens, cost, began in ask("\nUNION ALL\n".join(arms), bind.params):
            usually = round(usual[number][model].quartiles[1])
            found[number].append(Outlier(trace, model, tokens, usually, cost, began.replace(tzinfo=UTC)))
    return [sorted(of, key=lambda one: (-one.tokens, one.trace_id)) for of in found]


def _usual(ask: Ask, announced: Sequence[Announced], now: datetime) -> list[Mapping[str, Usual]]:
    found: list[dict[str, Usual]] = [{} for _ in announced]
    classes = list(_alike(announced).items())
    bind = Bound()
    arms = []
    for number, (alike, values) in enumerate(classes):
        scope = [dimension_sql(name, bind) for name in alike.fixed]
        model = dimension_sql("model", bind)
        arms.append(
            filled(
                "usual_tokens",
                arm=str(number),
                scope=", ".join(scope),
                model=model,
                tokens=TOKENS,
                groups=", ".join([*scope, model]),
                conditions=during(alike.period.start, min(now, alike.period.end), bind) + _within(alike, values, bind),
            )
        )
    for arm, scope, model, calls, quartiles, most in ask("\nUNION ALL\n".join(arms), bind.params):
        lower, middle, upper = quartiles
        for index in classes[arm][1].get(tuple(scope), ()):
            found[index][model] = Usual(calls, (lower, middle, upper), most)
    return list(found)
