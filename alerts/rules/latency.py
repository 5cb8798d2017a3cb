"""An objective on the time to first token, burnt too fast.

    burn = share of the calls that took longer than `ttft_ms` / share that may (5 of 100 for percentile 95)

It speaks when burn is reached over the window, so that a blip doesn't count, and over its last twelfth, so that it is over soon after its
cause is: the multiwindow burn rates of Google's SRE workbook, chapter 5 ("Alerting on SLOs"), recommendation 6, with its 1/12.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from tallystick.alerts.config_rules import LatencyRule
from tallystick.alerts.rules.finding import Finding, scope_sql, value_sql, window_start
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import Bound, during, filled, instant_sql

_SHORT: Final = 12


@dataclass(frozen=True)
class Latencies:
    """Calls with a known time to first token, and the slow ones among them: over the window, and lately."""

    value: str
    calls: int
    slow: int
    calls_lately: int
    slow_lately: int


def figures(ask: Ask, rule: LatencyRule, now: datetime) -> list[Latencies]:
    """Of every value that had such calls in the window."""
    bind = Bound()
    text = filled(
        "latency",
        value=value_sql(rule, bind),
        limit=bind(int(rule.ttft_ms * 1_000_000), "UInt64"),
        lately=instant_sql(now - rule.window / _SHORT, bind),
        within=during(now - rule.window, now, bind),
        scope=scope_sql(rule, bind),
    )
    return [Latencies(*row) for row in ask(text, bind.params)]


def judge(rule: LatencyRule, latencies: Latencies, now: datetime) -> Finding | None:
    """The two windows of the burn."""
    allowed = (100 - rule.percentile) / 100
    if latencies.calls < rule.minimum_calls or latencies.calls_lately < 1:
        return None
    share = Decimal(latencies.slow) / latencies.calls
    lately = Decimal(latencies.slow_lately) / latencies.calls_lately
    if min(share, lately) < rule.burn * allowed:
        return None
    reason = (
        f"{latencies.slow} of {latencies.calls} calls waited longer than {rule.ttft_ms:f} ms for their first token: {share * 100:.1f} %, where "
        f"{(allowed * 100).normalize():f} % may. That is {share / allowed:.1f} times too fast."
    )
    return Finding(latencies.value, "slow", window_start(now, rule.window), reason, share * 100, allowed * 100)
