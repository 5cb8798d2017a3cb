"""What is said of a budget now, as a function of what is spent and what has been said. No I/O, no clock, no memory.

A threshold is said once for each (budget, revision, period, value): a `Mark` stands for that, and what has a mark is never said again,
also if spend falls and rises. Spend that passes several thresholds between two ticks is one message, of the highest, and marks them all.

An edit makes a new revision, which at its first tick takes over what still holds: a threshold marked under the revision before, whose new
line is still reached, is marked again in silence; one whose line is now above the spend is said when it is reached. The mark `TAKEN_OVER`
remembers that this was done, for from then on a threshold that is reached is reached anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.config_fields import threshold
from tallystick.alerts.model import Basis, Forecast, Key, Kind, Mark, Measure, Period, Spend, Threshold

TAKEN_OVER: Final = "revision"
CORRECTION: Final = "correction"


class Reason(StrEnum):
    """Why something is said, or isn't."""

    REACHED = "reached"
    """A threshold is."""
    JUMPED = "jumped"
    """Several are, since the last tick."""
    LATE = "late"
    """Thresholds of a period that has ended: its last spans came late, or nobody looked in time."""
    CORRECTED = "corrected"
    """The total that was announced has changed."""
    BELOW = "below"
    BELOW_MINIMUM = "below_minimum"
    ALREADY_SAID = "already_said"
    CARRIED_OVER = "carried_over"
    """All that the revision before had said still holds."""
    REARMED = "rearmed"
    """Some of what the revision before had said no longer holds."""


@dataclass(frozen=True)
class Announcement:
    """One message to make. `key` is among the decision's marks.

    threshold: the highest of those reached, None for a correction. passed: the others, which the message stands for.
    announced: what had been said to be spent, for a correction. not_before: the end of quiet hours, UTC; None: send at once.
    """

    kind: Kind
    key: Key
    channels: tuple[str, ...]
    threshold: Threshold | None = None
    passed: tuple[Threshold, ...] = ()
    announced: Decimal | None = None
    not_before: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """`marks` enter the ledger together with the message; none does, and nothing is said, if its key is there already: another was first."""

    reason: Reason
    say: Announcement | None = None
    marks: tuple[Mark, ...] = ()


def decide(
    budget: Budget,
    revision: int,
    period: Period,
    spend: Spend,
    *,
    forecast: Forecast | None,
    marks: Iterable[Mark],
    now: datetime,
) -> Decision:
    """marks: all of this budget, period and value, of any revision. Revisions ascend with every edit, also with one that undoes another.

    A value that has marks is to be judged also when nothing is left of its spend: then with a `Spend` of zeros.
    """
    spent = spend.of(budget.measure)
    ended = now >= period.end
    foreseen = spent if ended or forecast is None else max(spent, forecast.expected)
    reached = [one for one, line in budget.lines if (spent if one.basis is Basis.ACTUAL else foreseen) >= line]
    too_small = spent < budget.floor
    marks = tuple(marks)
    if not marks and (not reached or too_small):
        return Decision(Reason.BELOW_MINIMUM if reached else Reason.BELOW)

    def mark(name: str, said: bool = False) -> Mark:
        key = Key(budget.name, revision, period.start, spend.value, name)
        return Mark(key, budget.limit, spent, spend.corrections, now, said)

    own = {one.key.mark: one for one in marks if one.key.revision == revision}
    before = None if TAKEN_OVER in own else _said_before(marks, revision)
    carried = [one for one in reached if one.key not in own and before and _covers(before, one)]
    taken = () if before is None else tuple(mark(name) for name in (TAKEN_OVER, *(one.key for one in carried)))
    known = [one for one in budget.thresholds if one.key in own or one in carried]
    new = [] if too_small else [one for one in reached if one not in known]
    # That so much will be spent is no news once that much was said to be.
    told = [one for one in new if one.basis is Basis.ACTUAL or not _covers(known, Threshold(one.percent))]

    if told:
        highest = max(told, key=lambda one: (one.percent, one.basis is Basis.ACTUAL))
        channels = tuple(dict.fromkeys(channel for one in told for channel in budget.channels_for(one.key)))
        say = Announcement(
            Kind.THRESHOLD,
            mark(highest.key).key,
            channels,
            highest,
            tuple(one for one in told if one is not highest),
            not_before=_not_before(budget, told, now),
        )
        reason = Reason.LATE if ended else Reason.JUMPED if len(told) > 1 else Reason.REACHED
        return Decision(reason, say, (*taken, *(mark(one.key, said=one is highest) for one in new)))

    silent = (*taken, *(mark(one.key) for one in new))
    if (announced := _to_correct(budget, own, spend)) is not None:
        corrected = mark(CORRECTION, said=True)
        channels = budget.channels_for(CORRECTION)
        say = Announcement(Kind.CORRECTION, corrected.key, channels, announced=announced, not_before=_not_before(budget, (), now))
        return Decision(Reason.CORRECTED, say, (*silent, corrected))
    if before is not None:
        rearmed = any(one not in known for one in budget.thresholds if one in before)
        reason = Reason.REARMED if rearmed else Reason.CARRIED_OVER
    elif too_small and any(one not in known for one in reached):
        reason = Reason.BELOW_MINIMUM
    else:
        reason = Reason.ALREADY_SAID if reached else Reason.BELOW
    return Decision(reason, marks=silent)


def _said_before(marks: Iterable[Mark], revision: int) -> list[Threshold] | None:
    """The thresholds that are marked under the last revision before this one that has any marks; None if none has."""
    older = [one.key for one in marks if one.key.revision < revision]
    if not older:
        return None
    last = max(key.revision for key in older)
    return [threshold(key.mark) for key in older if key.revision == last and key.mark not in {TAKEN_OVER, CORRECTION}]


def _covers(said: Iterable[Threshold], one: Threshold) -> bool:
    """Whoever heard of 80 % isn't told of a threshold at 70 % that an edit adds."""
    return any(other.basis is one.basis and other.percent >= one.percent for other in said)


def _to_correct(budget: Budget, own: Mapping[str, Mark], spend: Spend) -> Decimal | None:
    """What had been announced, if that is now wrong by more than the budget's share of it, and hasn't been corrected."""
    if CORRECTION in own:
        return None
    announced = max(
        (one for name, one in own.items() if name != TAKEN_OVER), key=lambda one: (one.said, one.spent, one.at), default=None
    )
    if announced is None or announced.spent <= 0:
        return None
    tolerated = announced.spent * budget.correction_percent / 100
    fell = announced.spent - spend.of(budget.measure) > tolerated
    moved = budget.measure is Measure.COST and abs(spend.corrections - announced.corrections) > tolerated
    return announced.spent if fell or moved else None


def _not_before(budget: Budget, told: Iterable[Threshold], now: datetime) -> datetime | None:
    quiet = budget.quiet_hours
    if quiet is None or any(one in quiet.except_ for one in told):
        return None
    return quiet.end_after(now, budget.timezone)
