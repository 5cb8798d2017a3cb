"""What a call that succeeds costs: retries and failures are paid for too."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tallystick.alerts.config_rules import CostPerSuccessRule
from tallystick.alerts.rules.finding import Finding, scope_sql, value_sql, window_start
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import Bound, during, filled


@dataclass(frozen=True)
class Successes:
    """Spend over a window, and calls. cost is of what has a price: in truth it may be more."""

    value: str
    cost: Decimal
    calls: int
    succeeded: int


def figures(ask: Ask, rule: CostPerSuccessRule, now: datetime) -> list[Successes]:
    """Of every value that had entries in the window."""
    bind = Bound()
    text = filled(
        "successes", value=value_sql(rule, bind), within=during(now - rule.window, now, bind), scope=scope_sql(rule, bind)
    )
    return [Successes(value, Decimal(cost or 0), calls, succeeded) for value, cost, calls, succeeded in ask(text, bind.params)]


def judge(rule: CostPerSuccessRule, successes: Successes, now: datetime) -> Finding | None:
    """Where none succeeds, what all cost is held against the limit for one."""
    if successes.calls < rule.minimum_calls:
        return None
    each = successes.cost / max(successes.succeeded, 1)
    if each <= rule.at_most:
        return None
    reason = (
        f"{successes.succeeded} of {successes.calls} calls succeeded, for {successes.cost:.6f} USD: {each:.6f} USD each, where at most "
        f"{rule.at_most:f} was meant."
    )
    return Finding(successes.value, "dear", window_start(now, rule.window), reason, each, rule.at_most)
