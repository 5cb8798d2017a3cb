"""A year of calls with corrections, and what answers in the database's place while it is simulated: the same figures, a thousand times faster."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from entries import Entry

from tallystick.alerts.drivers import Announced, Details
from tallystick.alerts.forecast import history_from, step_of
from tallystick.alerts.model import Measure, Spend
from tallystick.alerts.spend import Ask, Wanted

CUSTOMERS = ("acme", "globex", "initech", "umbrella", "it's")
AGENTS = ("writer", "planner", "")
CORRECTIONS = frozenset({"reprice", "trueup", "allocation"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
H, D = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, order=True)
class Arrival:
    """When an entry reaches the ledger; `at` of the entry says when the call was made."""

    when: datetime
    number: int
    entry: Entry = field(compare=False)


def calls(chance: random.Random, start: datetime, end: datetime, a_day: int) -> list[Arrival]:
    """In the order in which they arrive. Some are hours or days late, some dear, some voided, repriced or shared out afterwards."""
    made: list[tuple[datetime, Entry]] = []
    at = start
    while at < end:
        # Half as much in the night as at noon, and less at weekends.
        rate = a_day * (1.2 if at.weekday() < 5 else 0.5) * (1.3 if 7 <= at.hour < 19 else 0.7)
        at += timedelta(microseconds=round(chance.expovariate(rate) * D / timedelta(microseconds=1)))
        call = _call(chance, at)
        late = chance.choices((10, 7_200, 86_400, 10 * 86_400), (93, 4, 2, 1))[0]
        arrival = at + timedelta(seconds=chance.uniform(1, late))
        made.append((arrival, call))
        if call.cost is not None and (correction := _correction(chance, call)) is not None:
            made.append((arrival + chance.choice([H, 6 * H, 2 * D, 9 * D]) * chance.random(), correction))
    return sorted(Arrival(when, number, entry) for number, (when, entry) in enumerate(made) if when < end)


def _call(chance: random.Random, at: datetime) -> Entry:
    cost = Decimal(str(round(chance.lognormvariate(-1, 1), 6))) + Decimal(chance.randrange(10**6)) / 10**12
    # A batch job, or somebody's loop.
    many = chance.choice([20, 60, 200]) if chance.random() < 0.004 else 1
    return Entry(
        at=at,
        cost=None if chance.random() < 0.02 else cost * many,
        customer=chance.choices(CUSTOMERS, (40, 30, 15, 10, 5))[0],
        agent=chance.choices(AGENTS, (5, 3, 2))[0],
        feature=chance.choice(("chat", "search")),
        team=chance.choice(("blue", "red")),
        tags={"plan": "free"} if chance.random() < 0.4 else {},
        model=chance.choice(("gpt-5", "claude")),
        tokens=(chance.randrange(50, 4_000) * many, None, None, None, chance.randrange(10, 900)),
        trace=chance.getrandbits(64),
    )


def _correction(chance: random.Random, call: Entry) -> Entry | None:
    assert call.cost is not None
    drawn = chance.random()
    dear = call.cost > 20
    if drawn < (0.5 if dear else 0.01):
        negative = tuple(None if count is None else -count for count in call.tokens)
        return replace(call, entry="void", calls=-1, cost=-call.cost, tokens=negative)  # type: ignore[arg-type]
    if drawn < (0.7 if dear else 0.02):
        share = Decimal(chance.choice(["-0.6", "-0.2", "0.1", "0.9"]))
        return replace(call, entry="reprice", calls=0, cost=(call.cost * share).quantize(call.cost), tokens=(None,) * 5)
    if drawn < 0.022:
        return replace(
            call,
            entry=chance.choice(["allocation", "trueup"]),
            calls=0,
            cost=Decimal(chance.randrange(1, 30)),
            tokens=(None,) * 5,
        )
    return None


@dataclass
class _Sums:
    """What a scope has in [start, end), as far as the log was read. By value, and by step where there is one; else by `start`."""

    scope: Mapping[str, tuple[str, ...]]
    each: str | None
    start: datetime
    end: datetime
    step: timedelta | None
    read: int = 0
    spends: list[Spend] | None = None
    """Of `found`, as long as nothing is added."""
    found: dict[str, dict[datetime, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, entry: Entry) -> None:
        if not self.start <= entry.at < self.end or any(_of(entry, name) not in values for name, values in self.scope.items()):
            return
        self.spends = None
        step = self.start if self.step is None else EPOCH + (entry.at - EPOCH) // self.step * self.step
        steps = self.found[_of(entry, self.each) if self.each else ""]
        if step not in steps:
            steps[step] = dict.fromkeys(("cost", "corrections", "tokens", "calls", "priced_tokens", "priced_calls"), 0)
            steps[step]["cost"] = steps[step]["corrections"] = Decimal(0)
        sums, tokens = steps[step], sum(count or 0 for count in entry.tokens)
        sums["tokens"] += tokens
        sums["calls"] += entry.calls
        if entry.cost is not None:
            sums["cost"] += entry.cost
            sums["priced_tokens"] += tokens
            sums["priced_calls"] += entry.calls
            if entry.entry in CORRECTIONS:
                sums["corrections"] += entry.cost


class Book:
    """Answers in the place of `alerts.spend` and `alerts.drivers`: `spends`, `history` and `details` are called as theirs are."""

    def __init__(self) -> None:
        self._log: list[Entry] = []
        self._days: defaultdict[date, list[Entry]] = defaultdict(list)
        self._kept: dict[object, _Sums] = {}

    def enter(self, entry: Entry) -> None:
        self._log.append(entry)
        self._days[entry.at.date()].append(entry)

    def spends(self, ask: Ask, wanted: Sequence[Wanted], *, full: bool = False) -> Mapping[tuple[str, datetime], list[Spend]]:
        del full
        ask("spends", {})
        return {one.key: self.spend(one) for one in wanted}

    def spend(self, wanted: Wanted) -> list[Spend]:
        start = wanted.period.start
        sums = self._sums(wanted, start, wanted.period.end, None)
        if sums.spends is None:
            sums.spends = [Spend(value, **steps[start]) for value, steps in sums.found.items()]
            if wanted.each is None and not sums.found:
                sums.spends = [Spend("", Decimal(0), Decimal(0), 0, 0, 0, 0)]
        return sums.spends

    def history(
        self, ask: Ask, wanted: Sequence[Wanted]
    ) -> Mapping[tuple[str, datetime], Mapping[str, Mapping[datetime, Decimal]]]:
        if wanted:
            ask("history", {})
        return {one.key: self.steps(one) for one in wanted}

    def steps(self, wanted: Wanted) -> dict[str, dict[datetime, Decimal]]:
        step, names = step_of(wanted.period), {Measure.COST: "cost", Measure.TOKENS: "tokens", Measure.CALLS: "calls"}
        start, end = history_from(wanted.period), wanted.period.end
        start, end = start - (start - EPOCH) % step, end + (EPOCH - end) % step
        sums = self._sums(wanted, start, end, step)
        return {
            value: {at: Decimal(of[names[wanted.measure]]) for at, of in steps.items()} for value, steps in sums.found.items()
        }

    def details(self, ask: Ask, announced: Sequence[Announced], now: datetime) -> list[Details]:
        del now
        ask("details", {})
        return [Details(next(one for one in self.spend(case.wanted) if one.value == case.value), (), ()) for case in announced]

    def forget(self, before: datetime) -> None:
        """What nobody asks for again: entries that old, and sums of periods that ended by then."""
        for day in [day for day in self._days if day < before.date()]:
            del self._days[day]
        for key in [key for key, sums in self._kept.items() if sums.end < before]:
            del self._kept[key]
        least = min((sums.read for sums in self._kept.values()), default=len(self._log))
        del self._log[:least]
        for sums in self._kept.values():
            sums.read -= least

    def _sums(self, wanted: Wanted, start: datetime, end: datetime, step: timedelta | None) -> _Sums:
        key = (tuple(sorted(wanted.scope.items())), wanted.each, start, end, step)
        sums = self._kept.get(key)
        if sums is None:
            # Copies, which aren't to be counted as the alerter's memory.
            start, end = start + timedelta(0), end + timedelta(0)
            key = (*key[:2], start, end, step)
            sums = self._kept[key] = _Sums(wanted.scope, wanted.each, start, end, step)
            fresh: Iterator[Entry] | list[Entry] = (one for day in self._between(start, end) for one in self._days.get(day, ()))
        else:
            fresh = self._log[sums.read :]
        for entry in fresh:
            sums.add(entry)
        sums.read = len(self._log)
        return sums

    @staticmethod
    def _between(start: datetime, end: datetime) -> Iterator[date]:
        for days in range((end.date() - start.date()).days + 1):
            yield start.date() + timedelta(days=days)


def _of(entry: Entry, dimension: str) -> str:
    if dimension.startswith("tag:"):
        return entry.tags.get(dimension.removeprefix("tag:"), "")
    return str(getattr(entry, dimension))
