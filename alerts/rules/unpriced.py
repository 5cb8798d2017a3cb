"""Tokens that no price is known for: what budgets can't see."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tallystick.alerts.config_rules import UnpricedRule
from tallystick.alerts.rules.finding import Finding, scope_sql, value_sql, window_start
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import TOKENS, Bound, dimension_sql, during, filled


@dataclass(frozen=True)
class Coverage:
    """Tokens over a window, those without a price, and the models that have most of these."""

    value: str
    tokens: int
    unpriced: int
    models: tuple[str, ...]


def figures(ask: Ask, rule: UnpricedRule, now: datetime) -> list[Coverage]:
    """Of every value that had entries in the window."""
    bind = Bound()
    text = filled(
        "unpriced",
        value=value_sql(rule, bind),
        tokens=TOKENS,
        model=dimension_sql("model", bind),
        within=during(now - rule.window, now, bind),
        scope=scope_sql(rule, bind),
    )
    return [Coverage(value, total, unpriced, tuple(models)) for value, total, unpriced, models in ask(text, bind.params)]


def judge(rule: UnpricedRule, coverage: Coverage, now: datetime) -> Finding | None:
    """Of few tokens nothing is said."""
    if coverage.tokens < rule.minimum_tokens:
        return None
    percent = Decimal(100 * coverage.unpriced) / coverage.tokens
    if percent <= rule.at_most_percent:
        return None
    models = ", ".join(model or "without a name" for model in coverage.models)
    reason = (
        f"{percent:.1f} % of {coverage.tokens:,} tokens have no price, where at most {rule.at_most_percent:f} % was meant; most are of "
        f"these models: {models}."
    )
    return Finding(coverage.value, "unpriced", window_start(now, rule.window), reason, percent, rule.at_most_percent)
