"""What had to be said of budgets, reckoned by somebody who listens and forgets nothing; its own code beside `alerts.decide`.

After every attempt at an evaluation it adds up the entries itself, and hears the messages that were entered. It knows no marks: except that,
of an attempt that was cut off, the ledger tells which cases it had come to.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.model import Basis, Forecast, Key, Kind, Message, Period, Spend, Threshold
from tallystick.alerts.periods import PeriodSpec, period_at
from tallystick.alerts.spend import Wanted

MOST_PERIODS = 100
CORRECTION = "correction"

Of = tuple[str, datetime, str]
"""Budget, start of the period, value."""
Foresee = Callable[[Period, datetime, Decimal, Mapping[datetime, Decimal]], Forecast | None]


@dataclass(frozen=True)
class InForce:
    """A definition of a budget, and since when and until when it holds; until None: it still does. newest: when the present one was made."""

    budget: Budget
    revision: int
    at: datetime
    until: datetime | None
    newest: datetime


@dataclass(frozen=True)
class Attempt:
    """An evaluation: what its clock showed, whether it came to its end, and if not, which cases had been entered by then."""

    now: datetime
    whole: bool
    entered: frozenset[Of] = frozenset()


@dataclass
class Counts:
    """Of one kind of budget. Thresholds that had to be said, and what became of them; corrections likewise; `wrong` is told in words."""

    budgets: int = 0
    due: int = 0
    alone: int = 0
    with_higher: int = 0
    carried: int = 0
    twice: int = 0
    never: int = 0
    corrections: int = 0
    corrections_never: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class _Heard:
    """Of one value in one period, under one revision. figures: (said, spent, corrections) of each time that something was learnt."""

    revision: int
    known: set[Threshold]
    figures: list[tuple[bool, Decimal, Decimal]]
    corrected: bool = False


class Reckoning:
    """sums: of a budget in a period, by value; steps: the same by days or hours, for forecasts. kind: the row in which a budget counts."""

    def __init__(
        self,
        sums: Callable[[Wanted], Sequence[Spend]],
        steps: Callable[[Wanted], Mapping[str, Mapping[datetime, Decimal]]],
        foresee: Foresee,
        kind: Callable[[str], str],
    ) -> None:
        self._sums, self._steps, self._foresee, self._kind = sums, steps, foresee, kind
        self._heard: defaultdict[tuple[str, datetime], dict[str, _Heard]] = defaultdict(dict)
        self._keys: set[int] = set()
        """Hashes, which weigh less over a year."""
        self._seen: dict[Of, tuple[Budget, int, Spend]] = {}
        """As each case was judged last: nothing can be new of it as long as that stays."""
        self._last: datetime | None = None
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.kinds: Counter[Kind] = Counter()

    def hear(self, budgets: Iterable[InForce], attempts: Sequence[Attempt], messages: Sequence[Message]) -> None:
        """attempts: in the order in which they began, with no entry between them. messages: what they entered."""
        waiting = {id(message): message for message in messages}
        for message in messages:
            self.kinds[message.kind] += 1
            if hash(message.key) in self._keys:
                self._of(message.key.subject).twice += 1
            self._keys.add(hash(message.key))
        budgets = list(budgets)
        for attempt in attempts:
            if not attempt.whole and not attempt.entered and not messages:
                continue
            own = {_case(message.key): message for message in messages if message.at == attempt.now}
            for each in budgets:
                for period in judged(each, self._last, attempt.now):
                    for case in self._judge(each, period, attempt, own):
                        waiting.pop(id(own.get(case)), None)
            if attempt.whole:
                self._last = attempt.now
        for message in waiting.values():
            self._of(message.key.subject).wrong.append(f"nobody could say {message.key} at {message.at}")

    def forget(self, before: datetime) -> None:
        """Periods that began before then, and that nobody judges any more."""
        for key in [key for key in self._heard if key[1] < before]:
            del self._heard[key]
        self._seen = {of: seen for of, seen in self._seen.items() if of[1] >= before}

    def _judge(self, each: InForce, period: Period, attempt: Attempt, messages: Mapping[Of, Message]) -> Iterator[Of]:
        budget = each.budget
        wanted = Wanted(budget.name, period, budget.scope, budget.each, budget.measure)
        heard = self._heard.get((budget.name, period.start), {})
        sums = {one.value: one for one in self._sums(wanted)}
        sums |= {value: Spend(value, Decimal(0), Decimal(0), 0, 0) for value in heard.keys() - sums.keys()}
        steps = None
        foresees = any(one.basis is Basis.FORECAST for one in budget.thresholds)
        for value, spend in sums.items():
            case = budget.name, period.start, value
            message = messages.get(case)
            if value in heard and heard[value].revision > each.revision:
                continue
            if message is None and not foresees and self._seen.get(case) == (budget, each.revision, spend):
                continue
            if not attempt.whole and message is None and case not in attempt.entered:
                continue
            spent = spend.of(budget.measure)
            forecast = None
            if foresees:
                steps = steps or self._steps(wanted)
                forecast = self._foresee(period, attempt.now, spent, steps.get(value, {}))
            foreseen = spent if forecast is None or attempt.now >= period.end else max(spent, forecast.expected)
            self._learn(each, period, spend, foreseen, message)
            self._seen[case] = budget, each.revision, spend
            yield case

    def _learn(self, each: InForce, period: Period, spend: Spend, foreseen: Decimal, message: Message | None) -> None:
        budget, counts = each.budget, self._of(each.budget.name)
        spent = spend.of(budget.measure)
        amounts = {Basis.ACTUAL: spent, Basis.FORECAST: foreseen}
        reached = {one for one in budget.thresholds if amounts[one.basis] >= budget.amount * one.percent / 100}
        states = self._heard[budget.name, period.start]
        heard = states.get(spend.value)
        if heard is not None and heard.revision != each.revision:
            held = {one for one in reached if any(k.basis is one.basis and k.percent >= one.percent for k in heard.known)}
            counts.carried += len(held)
            heard = _Heard(each.revision, held, [(False, spent, spend.corrections)] if held else [])
            states[spend.value] = heard
        known = heard.known if heard else set()
        new = reached - known if spent >= budget.minimum else set()
        known_actual = max((one.percent for one in known if one.basis is Basis.ACTUAL), default=Decimal(0))
        due = {one for one in new if one.basis is Basis.ACTUAL or one.percent > known_actual}
        to_correct = heard is not None and not due and not heard.corrected and _wrong_now(budget, heard.figures, spend)

        where = f"{budget.name}/{spend.value} of {period.label}, revision {each.revision}"
        if message is not None and (message.spent, message.amount, message.key.revision) != (spent, budget.amount, each.revision):
            counts.wrong.append(f"{where}: {message.spent} of {message.amount} was told, it is {spent} of {budget.amount}")
        if due:
            counts.due += len(due)
            highest = max(due, key=lambda one: (one.percent, one.basis is Basis.ACTUAL))
            if message is None:
                counts.never += len(due)
                counts.wrong.append(f"{where}: nobody told of {sorted(one.key for one in due)} at {spent}")
            else:
                counts.alone += 1
                counts.with_higher += len(due) - 1
                if message.key.mark != highest.key:
                    counts.wrong.append(f"{where}: {message.key.mark} was told, {highest.key} is reached")
        elif to_correct:
            counts.corrections += 1
            if message is None or message.kind is not Kind.CORRECTION:
                counts.corrections_never += 1
                counts.wrong.append(f"{where}: nobody corrected what was told; it is {spent}")
        elif message is not None:
            counts.wrong.append(f"{where}: {message.key.mark} was told at {spent} without a cause")
        if new:
            heard = states.setdefault(spend.value, heard or _Heard(each.revision, set(), []))
            heard.known |= new
            heard.figures.append((bool(due), spent, spend.corrections))
        if heard and to_correct:
            heard.corrected = True

    def _of(self, budget: str) -> Counts:
        return self.counts[self._kind(budget)]


def judged(each: InForce, last: datetime | None, now: datetime) -> Iterator[Period]:
    """The current period, the one before, and those that ended since the last evaluation: each by the definition that held when it ended.

    A definition that was made under a clock that was ahead judges all.
    """
    if each.until is not None and each.newest > now:
        return
    period = _period_at(each.budget.periods, now)
    number = 0
    while number < MOST_PERIODS:
        if each.until is None or period.end <= each.until:
            yield period
        number += 1
        period = _period_at(each.budget.periods, period.start - timedelta(microseconds=1))
        if last is None or period.end <= each.at <= now or (number > 1 and period.end <= last):
            return


@lru_cache(maxsize=2_000)
def _period_at(spec: PeriodSpec, at: datetime) -> Period:
    found = period_at(spec, at)
    # Its own copies: what the reckoning remembers isn't to be counted as the alerter's memory.
    return Period(found.start + timedelta(0), found.end + timedelta(0), found.label)


def _wrong_now(budget: Budget, figures: Sequence[tuple[bool, Decimal, Decimal]], spend: Spend) -> bool:
    """Whether the most that was told has since become less, or was corrected, by more than the budget's share of it."""
    if not figures:
        return False
    _, told, corrections = max(reversed(figures), key=lambda one: one[:2])
    tolerated = told * budget.correction_percent / 100
    moved = abs(spend.corrections - corrections) if budget.measure == "cost" else Decimal(0)
    return told > 0 and (told - spend.of(budget.measure) > tolerated or moved > tolerated)


def _case(key: Key) -> Of:
    return key.subject, key.period_start, key.value
