"""The dimensions of spend for those who choose among them: what each means, and its values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tallystick.attribution.spend import Query, expression, period

_VALUES: Final = (Path(__file__).parent / "queries" / "dimension_values.sql").read_text(encoding="utf-8")

TAG: Final = "tag"
"""Not a dimension itself: its values are the names NAME of `tag:NAME`."""

MEANINGS: Final[Mapping[str, str]] = {
    "customer": "for which customer of yours",
    "feature": "for which feature of your product",
    "agent": "which agent called",
    "team": "which team answers for it",
    "user": "on behalf of which user",
    "session": "in which session or conversation",
    "service": "`service.name` of the process",
    "environment": "`deployment.environment.name` of the process",
    "tenant": "whose key sent the call",
    "provider": "who served the call",
    "model": "the model that answered, else the one that was asked for",
    "request_model": "the model that was asked for",
    "response_model": "the model that answered, by its full name",
    "operation": "chat, text_completion, generate_content, embeddings, …",
    "service_tier": "flex, priority, batch, …",
    "status": "how the call ended: ok, error, cancelled",
    "error_type": "the error's type",
    "cache_hit": "which cache of the application answered instead of the model",
    "usage_source": "where the counts of tokens come from",
    "entry": "call, void, reprice, allocation or trueup",
    "price_id": "the price that was applied",
    "hour": "the hour in which the call began, UTC",
    "day": "the day, UTC",
    "month": "the month, UTC, by its first day",
}
"""Of spend.DIMENSIONS."""


def values(name: str, since_ns: int, until_ns: int, *, prefix: str, limit: int) -> Query:
    """The query for values of a dimension, or of TAG, in [since, until) that begin with `prefix`: value, value_calls, value_cost (NULL: unpriced).

    Those with the most calls come first. Raises UnknownDimension.
    """
    params: dict[str, Any] = {"prefix": prefix, "limit": limit}
    sql = "arrayJoin(mapKeys(tags))" if name == TAG else expression(name, "tag", params)
    text = _VALUES.replace("/*expression*/", sql).replace("/*conditions*/", period(since_ns, until_ns, params))
    return Query(text, params)
