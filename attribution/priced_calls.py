"""Calls of a period under a price book: the SQL of repricing, and of what has no price any more."""

import re
from dataclasses import dataclass
from typing import Final

from tallystick.attribution.sql_files import fill, shared
from tallystick.schema.dialects import quote

COLUMNS: Final = (
    "tenant", "customer", "feature", "agent", "team", "user", "session", "service", "environment", "tags", "provider", "request_model",
    "response_model", "operation", "service_tier", "streamed", "status", "error_type", "cache_hit", "input_tokens", "cache_read_tokens",
    "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens",
    "image_input_tokens", "usage_source", "started_at", "trace_id", "span_id",
)  # fmt: skip
"""What `priced_calls` has of each call, beside held_usd, held_unpriced, price_id and cost_usd."""


@dataclass(frozen=True)
class Which:
    """Calls that started in [since_ns, until_ns), nanoseconds since 1970; None is any.

    model: a name, or a pattern with * and ?, of the model that was asked for or that answered, in any case.
    """

    since_ns: int
    until_ns: int
    model: str | None = None
    provider: str | None = None
    customer: str | None = None
    tenant: str | None = None

    def condition(self) -> str:
        """As SQL over the ledger."""
        parts = [period(self.since_ns, self.until_ns)]
        if self.model is not None:
            pattern = quote("(?is)^(?:" + "".join(map(_matching, self.model)) + ")$")
            parts.append(f"(match(request_model, {pattern}) OR match(response_model, {pattern}))")
        for name in ("provider", "customer", "tenant"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name} = {quote(value)}")
        return " AND ".join(parts)


def period(since_ns: int, until_ns: int) -> str:
    """Entries that belong to [since_ns, until_ns), as SQL over the ledger."""
    return (
        f"started_at >= fromUnixTimestamp64Nano(toInt64({since_ns}), 'UTC') "
        f"AND started_at < fromUnixTimestamp64Nano(toInt64({until_ns}), 'UTC')"
    )


def priced_calls(book: str, condition: str, *, corrected: bool = True) -> str:
    """SQL for the calls that stand, with what they cost under the book with this id; columns in queries/priced_calls.sql.

    condition: SQL over the ledger's columns, true for a call and its corrections alike (`Which.condition`). The book's prices of
    these calls' models must stand in table `prices`.
    """
    return fill(
        "priced_calls",
        held=fill("held_corrected" if corrected else "held_as_entered", columns=", ".join(COLUMNS), condition=condition),
        cost=shared("cost"),
        join=shared("cost_join").replace("{book:String}", quote(book)),
    )


def _matching(character: str) -> str:
    return {"*": ".*", "?": "."}.get(character) or re.escape(character)
