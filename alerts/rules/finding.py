"""What a rule finds, and how its scope stands in SQL."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from tallystick.alerts.config_rules import AnomalyRule, CostPerSuccessRule, LatencyRule, NoDataRule, UnpricedRule
from tallystick.alerts.spend_sql import Bound, dimension_sql

RuleOfEach = AnomalyRule | LatencyRule | CostPerSuccessRule | NoDataRule | UnpricedRule
"""The rules that look at the ledger."""

EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class Finding:
    """What is said of one value ("" of a rule without `each`).

    mark: what was found; the same for as long as it lasts. since: the start of the window, hour or silence in which it was found: with the
    rule, the value and the mark it makes the key under which this is said once. observed and usual are in the figure's unit; usual
    is what was to be expected, or the limit.
    """

    value: str
    mark: str
    since: datetime
    reason: str
    observed: Decimal
    usual: Decimal


class Open(NamedTuple):
    """What has been said, and not yet that it is over."""

    value: str
    mark: str


class Change(NamedTuple):
    """new: to be said. over: that it is over is to be said. What lasts is in neither."""

    new: tuple[Finding, ...]
    over: tuple[Open, ...]


def settle(findings: Iterable[Finding], open_: Collection[Open]) -> Change:
    """What has changed since the last look at a rule. Another mark of a value takes the place of the one before it without a word of its end."""
    found = {Open(one.value, one.mark): one for one in findings}
    still = {one.value for one in found}
    new = tuple(one for key, one in found.items() if key not in set(open_))
    return Change(new, tuple(one for one in open_ if one not in found and one.value not in still))


def window_start(now: datetime, window: timedelta) -> datetime:
    """The start of the window of the clock that holds `now`: within one nothing is said twice."""
    return now - (now - EPOCH) % window


def value_sql(rule: RuleOfEach, bind: Bound) -> str:
    """What groups are named by."""
    return dimension_sql(rule.each, bind) if rule.each else "''"


def scope_sql(rule: RuleOfEach, bind: Bound) -> str:
    """Conditions after others."""
    return "".join(
        f" AND {dimension_sql(name, bind)} IN {bind(list(values), 'Array(String)')}" for name, values in rule.scope.items()
    )
