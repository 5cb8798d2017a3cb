"""Allocation: cost that no call caused, spread over those who are to bear it, as entries that sum to it. Rules: docs/allocation.md."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any, Final

from tallystick.attribution.allocation_rules import AllocationRule
from tallystick.attribution.corrections import AlreadyMade, Busy, Corrections, Line, Made, NotMade
from tallystick.attribution.moments import nanoseconds
from tallystick.attribution.months import Period
from tallystick.attribution.spend import Ask, expression, filters, period
from tallystick.attribution.spreading import spread

_BASE: Final = (Path(__file__).parent / "queries" / "allocation_base.sql").read_text(encoding="utf-8")
_UNIT: Final = Decimal("1e-12")
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
_DEFAULT_TENANT: Final = "default"

Group = tuple[str, ...]
"""Tenant, and values of the rule's other dimensions."""


class CantAllocate(ValueError):
    """Nothing is allocated. `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True)
class Base:
    """What the calls of a day and group come to."""

    day: date
    group: Group
    cost_usd: Decimal | None
    tokens: int
    calls: int
    priced_calls: int


@dataclass(frozen=True)
class Plan:
    """What is to be entered: `lines` sum to `amount_usd`. how: how the amount comes about. notes: what a reader must know."""

    rule: AllocationRule
    period: Period
    amount_usd: Decimal
    lines: tuple[Line, ...]
    how: str
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.rule.name} {self.period.name}"

    def shares(self) -> list[tuple[str, dict[str, str], Decimal]]:
        """Tenant, who, and what they bear in all, the most first."""
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], Decimal] = defaultdict(Decimal)
        for line in self.lines:
            who = {**line.who, **{f"tag:{name}": value for name, value in line.tags.items()}}
            sums[line.tenant, tuple(who.items())] += line.cost_usd
        return [(tenant, dict(who), usd) for (tenant, who), usd in sorted(sums.items(), key=lambda one: (-one[1], one[0]))]


def plan(ask: Ask, rule: AllocationRule, within: Period, *, amount: Decimal | None = None) -> Plan:
    """amount: USD, of a rule of kind amount. Raises CantAllocate, UnknownDimension, and what `ask` raises."""
    if within.length != rule.period:
        raise CantAllocate(f"{rule.name} is for a {rule.period}, and {within.name} is a {within.length}", _FORMS[rule.period])
    if (amount is None) == (rule.kind == "amount"):
        needed = rule.kind == "amount"
        raise CantAllocate(
            f"{rule.name} {'needs an amount' if needed else 'has an amount of its own'}",
            "give it with --amount" if needed else f"leave --amount out: its kind is {rule.kind}",
        )
    base = _base(ask, rule.over, rule.scope, within, also=rule.include_allocations)
    total, how, notes = _amount(ask, rule, within, base, amount)
    if not total:
        raise CantAllocate(f"there is nothing to allocate in {within.name}: {how}", "nothing was entered")
    weights = _weights(rule, within, base)
    if any(weight < 0 for weight in weights.values()):
        notes += ("who has less than nothing bears nothing",)
    weights = {place: max(weight, Decimal(0)) for place, weight in weights.items()}
    if not any(weights.values()):
        raise CantAllocate(
            f"there is nobody to bear {total:f} USD: no {rule.by} by {', '.join(rule.over)} in {within.name}",
            "widen `scope` of the rule, or take `by: calls`, `equal` or `shares`",
        )
    unpriced = sum(one.calls - one.priced_calls for one in base)
    if unpriced and rule.by == "cost":
        notes += (f"{unpriced:,} calls have no cost and count for nothing: `tallystick prices missing` lists them",)
    lines = tuple(_line(rule, day, group, usd) for (day, group), usd in _shares(total, weights) if usd)
    return Plan(rule, within, total, lines, how, (*rule.warnings, *notes))


def allocate(
    corrections: Corrections, planned: Callable[[], Plan], *, reason: str, author: str, now: datetime, again: bool = False
) -> tuple[Plan, Made]:
    """Enter a plan. again: what stands for the same rule and period is undone first, and the plan made anew.

    Raises CantAllocate, AlreadyMade (where it stands and not `again`), and what Corrections raises.
    """
    made = planned()
    if made.period.until > now:
        raise CantAllocate(f"{made.period.name} isn't over", "--dry-run shows what it would come to so far")
    why = reason or made.rule.reason or f"{made.rule.kind} {made.key}"
    stands = standing(corrections, made.key) if again else None
    if stands is None:
        return made, _append(corrections, made, why, author)
    corrections.undo(stands.id, reason=f"allocated again: {why}", author=author)
    try:
        made = planned()
        return made, _append(corrections, made, why, author)
    except (CantAllocate, AlreadyMade, Busy, NotMade) as error:
        raise CantAllocate(f"{stands.id} was undone, and nothing allocated anew: {error}", "allocate without --again") from error


def _append(corrections: Corrections, made: Plan, reason: str, author: str) -> Made:
    return corrections.append("allocation", made.lines, key=made.key, reason=reason, author=author, detail=_detail(made))


def standing(corrections: Corrections, key: str) -> Made | None:
    """The run with this key that isn't undone."""
    return next((one for one in runs(corrections) if one.key == key and not one.undone_by), None)


def runs(corrections: Corrections) -> list[Made]:
    """Allocations, the newest first."""
    return [one for one in corrections.all(_MOST_RUNS) if one.kind == "allocation"]


_MOST_RUNS: Final = 10_000
_FORMS: Final = {"day": "write a day: 2026-10-05", "week": "write a week: 2026-W42", "month": "write a month: 2026-10"}


def _base(ask: Ask, over: Sequence[str], scope: Mapping[str, str], within: Period, *, also: bool) -> list[Base]:
    params: dict[str, Any] = {}
    names = [name for name in over if name != "tenant"]
    columns = [f"by_{at}" for at in range(len(names))]
    expressions = [
        f"{expression(name, f'tag_{column}', params)} AS {column}" for name, column in zip(names, columns, strict=True)
    ]
    conditions = [period(nanoseconds(within.since), nanoseconds(within.until), params), *filters(scope, params)]
    text = (
        "\n".join(line for line in _BASE.splitlines() if not line.startswith("--"))
        .replace("/*expressions*/", "".join(f"{one}, " for one in expressions))
        .replace("/*conditions*/", " AND ".join(conditions))
        .replace("/*entries*/", "1" if also else "entry != 'allocation'")
        .replace("/*order*/", "".join(f", {one}" for one in columns))
    )
    return [
        Base(
            _day(row["day"]),
            (row["tenant"], *(row[column] for column in columns)),
            row["cost"],
            row["tokens"],
            row["n"],
            row["priced_calls"],
        )
        for row in ask(text, params)
    ]


def _amount(
    ask: Ask, rule: AllocationRule, within: Period, base: Sequence[Base], given: Decimal | None
) -> tuple[Decimal, str, tuple[str, ...]]:
    """USD, how they come about, and what must be known of them."""
    match rule.kind:
        case "overhead":
            assert rule.percent is not None
            spent = _spent(base)
            amount = (spent * rule.percent / 100).quantize(_UNIT, context=_EXACT)
            return amount, f"{rule.percent:f} % of {spent:f} USD", ()
        case "fixed":
            assert rule.amount is not None
            if rule.per == "day":
                return rule.amount * within.days, f"{rule.amount:f} USD a day for {within.days} days", ()
            return rule.amount, f"{rule.amount:f} USD for the {rule.period}", ()
        case "idle":
            assert rule.usd_per_hour is not None
            assert rule.charged_to is not None
            gpus, hours = rule.gpus or Decimal(1), rule.hours if rule.hours is not None else Decimal(24 * within.days)
            provided = (gpus * hours * rule.usd_per_hour).quantize(_UNIT, context=_EXACT)
            charged = _base(ask, (), rule.charged_to, within, also=False)
            spent = _spent(charged)
            how = f"{gpus:f} × {hours:f} h × {rule.usd_per_hour:f} USD = {provided:f} USD, less {spent:f} USD that its calls were charged"
            unpriced = sum(one.calls - one.priced_calls for one in charged)
            notes = (f"{unpriced:,} of its calls have no cost: they count as idle time",) if unpriced else ()
            if not charged:
                notes = (f"no calls in {within.name} fit `charged_to`: all of it counts as idle",)
            return max(provided - spent, Decimal(0)), how, notes
        case "amount":
            assert given is not None
            return given, f"{given:f} USD, as given", ()


def _weights(rule: AllocationRule, within: Period, base: Sequence[Base]) -> dict[tuple[date, Group], Decimal]:
    """What each group weighs on each day."""
    days = [within.since.date() + timedelta(days=at) for at in range(within.days)]
    match rule.by:
        case "cost":
            return {(one.day, one.group): one.cost_usd or Decimal(0) for one in base}
        case "tokens":
            return {(one.day, one.group): Decimal(one.tokens) for one in base}
        case "calls":
            return {(one.day, one.group): Decimal(one.calls) for one in base}
        case "equal":
            calls: dict[Group, int] = defaultdict(int)
            for one in base:
                calls[one.group] += one.calls
            groups = sorted(group for group, n in calls.items() if n > 0)
            return {(day, group): Decimal(1) for day in days for group in groups}
        case "shares":
            tenant = rule.tenant or _DEFAULT_TENANT
            named: Iterable[tuple[Group, Decimal]] = (
                ((name,) if rule.over == ("tenant",) else (tenant, name), share) for name, share in sorted(rule.shares.items())
            )
            shares = list(named)
            return {(day, group): share for day in days for group, share in shares}


def _shares(total: Decimal, weights: Mapping[tuple[date, Group], Decimal]) -> Iterator[tuple[tuple[date, Group], Decimal]]:
    """Of each group on each day. First by group, so that none gains by the units that its days are rounded by."""
    days: dict[Group, list[date]] = defaultdict(list)
    for day, group in weights:
        days[group].append(day)
    sums = [sum((weights[day, group] for day in of_it), Decimal(0)) for group, of_it in days.items()]
    for (group, of_it), borne in zip(days.items(), spread(total, sums), strict=True):
        for day, usd in zip(of_it, spread(borne, [weights[day, group] for day in of_it]), strict=True):
            yield (day, group), usd


def _line(rule: AllocationRule, day: date, group: Group, usd: Decimal) -> Line:
    named = dict(zip([name for name in rule.over if name != "tenant"], group[1:], strict=True)) | rule.set
    return Line(
        started_at=datetime.combine(day, time(), UTC),
        cost_usd=usd,
        tenant=group[0],
        who={name: value for name, value in named.items() if not name.startswith("tag:")},
        what={},
        tags={name.removeprefix("tag:"): value for name, value in named.items() if name.startswith("tag:")},
    )


def _spent(base: Iterable[Base]) -> Decimal:
    return sum((one.cost_usd for one in base if one.cost_usd is not None), Decimal(0))


def _detail(made: Plan) -> dict[str, object]:
    rule = made.rule.model_dump(mode="json", exclude_defaults=True)
    return {"rule": rule, "period": made.period.name, "amount_usd": f"{made.amount_usd:f}", "how": made.how}


def _day(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
