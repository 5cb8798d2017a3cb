"""What is watched besides budgets: each rule is a query for its figures and a pure judgement of them.

findings = look(ask, rule, now)
change = settle(findings, open)      # what is new, and what is over
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import assert_never

from tallystick.alerts.config_rules import (
    AnomalyRule,
    CostPerSuccessRule,
    LatencyRule,
    NoDataRule,
    ProbeRegressionRule,
    Rule,
    UnpricedRule,
)
from tallystick.alerts.rules import anomaly, latency, probe_regression, silence, success, unpriced
from tallystick.alerts.rules.finding import Change, Finding, Open, settle
from tallystick.alerts.spend import Ask

__all__ = ["Change", "Finding", "Open", "due", "look", "settle"]


def look(ask: Ask, rule: Rule, now: datetime, note: Callable[[str], object] = lambda _: None) -> list[Finding]:
    """What a rule finds at `now`, by value. One query. note: is told what can't be judged, and why."""
    match rule:
        case AnomalyRule():
            found = [anomaly.judge(rule, one, now) for one in anomaly.figures(ask, rule, now)]
        case LatencyRule():
            found = [latency.judge(rule, one, now) for one in latency.figures(ask, rule, now)]
        case CostPerSuccessRule():
            found = [success.judge(rule, one, now) for one in success.figures(ask, rule, now)]
        case NoDataRule():
            found = [silence.judge(rule, one, now) for one in silence.figures(ask, rule, now)]
        case UnpricedRule():
            found = [unpriced.judge(rule, one, now) for one in unpriced.figures(ask, rule, now)]
        case ProbeRegressionRule():
            found = [probe_regression.judge(rule, one, note) for one in probe_regression.figures(ask, rule)]
        case _:
            assert_never(rule)
    return sorted((one for one in found if one), key=lambda one: one.value)


def due(rule: Rule, last: datetime | None, now: datetime) -> bool:
    """Whether a look at `now` can find what the one at `last` couldn't: an anomaly's hour changes hourly, the others are worth one a minute."""
    if last is None:
        return True
    if isinstance(rule, AnomalyRule):
        return anomaly.hour_in_question(now) != anomaly.hour_in_question(last)
    return now - last >= timedelta(minutes=1) or now < last
