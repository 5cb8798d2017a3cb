"""No calls, where there should be some.

A silence of `after` is found if calls would have been usual in it: at least five in as long a stretch a week earlier and, if the value
is known for so long, in the one two weeks earlier; of a value that is younger than a week, a day earlier. Nights and weekends are silent
every week, and aren't found.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from tallystick.alerts.config_rules import NoDataRule
from tallystick.alerts.rules.finding import EPOCH, Finding, scope_sql, value_sql
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import Bound, during, filled, instant_sql

WATCHED: Final = timedelta(days=7)
"""For so long a silence is kept in mind; a value that stays away is given up then."""
_USUAL: Final = 5


@dataclass(frozen=True)
class Silence:
    """A value's last call, its first as far as is known, and how many calls came in `after` from a day, a week, two weeks before the last."""

    value: str
    last: datetime
    first: datetime
    day_before: int
    week_before: int
    two_weeks_before: int


def figures(ask: Ask, rule: NoDataRule, now: datetime) -> list[Silence]:
    """Of the values that are silent now."""
    bind = Bound()
    text = filled(
        "silences",
        value=value_sql(rule, bind),
        within=during(now - WATCHED - timedelta(days=15), now + timedelta(hours=1), bind),
        scope=scope_sql(rule, bind),
        since=instant_sql(now - rule.after, bind),
        after=bind(int(rule.after.total_seconds()), "UInt32"),
    )
    return [
        Silence(value, EPOCH + timedelta(microseconds=last), EPOCH + timedelta(microseconds=first), *map(int, counts))
        for value, last, first, *counts in ask(text, bind.params)
    ]


def judge(rule: NoDataRule, silence: Silence, now: datetime) -> Finding | None:
    """What was usual doesn't change while a silence lasts, so that it is one finding."""
    if not rule.after <= now - silence.last <= WATCHED + rule.after:
        return None
    known = silence.last - silence.first
    if known >= timedelta(days=7):
        usual = [silence.week_before, *([silence.two_weeks_before] if known >= timedelta(days=14) else [])]
    else:
        usual = [silence.day_before] if known >= timedelta(days=1) else []
    if not usual or min(usual) < _USUAL:
        return None
    reason = (
        f"No call since {silence.last:%Y-%m-%d %H:%M} UTC; in the {int(rule.after.total_seconds() // 60)} minutes after that, {min(usual)} "
        f"calls {'a week' if known >= timedelta(days=7) else 'a day'} earlier were the least."
    )
    return Finding(silence.value, "silent", silence.last, reason, Decimal(0), Decimal(min(usual)))
