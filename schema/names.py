"""Names on the wire: what tallystick itself writes on spans, resources and baggage. Other dialects' names are data, in `dialects/`."""

from typing import Final

CUSTOMER: Final = "tallystick.customer"
FEATURE: Final = "tallystick.feature"
AGENT: Final = "tallystick.agent"
TEAM: Final = "tallystick.team"
USER: Final = "tallystick.user"
SESSION: Final = "tallystick.session"
TENANT: Final = "tallystick.tenant"
TAG_PREFIX: Final = "tallystick.tag."

INSTRUMENTATION: Final = "tallystick"
"""Instrumentation scope of the spans that the collector makes itself, where nothing else makes one."""

SCOPE_KEYS: Final = (CUSTOMER, FEATURE, AGENT, TEAM, USER, SESSION)
"""Who a call was for, in the order in which the product shows them."""

CACHE_HIT: Final = "tallystick.cache_hit"
"""On a call that was answered by the application's own cache: `response` or `semantic`."""
CACHE_SIMILARITY: Final = "tallystick.cache_similarity"
"""How near the question of a semantic hit was to the one that had been answered, as the cache tells it."""
SAVED_INPUT_TOKENS: Final = TAG_PREFIX + "saved_input_tokens"
SAVED_OUTPUT_TOKENS: Final = TAG_PREFIX + "saved_output_tokens"
"""Tags of such a call: tokens of the call that wasn't made, as texts."""

USAGE_SOURCE: Final = "tallystick.usage_source"
"""Where a call's token counts come from: `provider`, `estimated`, `partial`, `missing` or `none`."""
TIME_TO_FIRST_TOKEN: Final = "tallystick.time_to_first_token"  # noqa: S105 - of a model
"""Seconds from the start of the span to the first piece of the answer, on streams."""
FIRST_TOKEN_KIND: Final = "tallystick.first_token_kind"  # noqa: S105 - of a model
"""What that piece was: `content`, `reasoning` or `tool_call`."""
RETRIES: Final = "tallystick.retries"
"""Requests that the client library sent for the call beyond the first; absent where there were none."""
TOOL_CALLS: Final = "tallystick.tool_calls"
"""Tool calls in the answer; absent where there are none."""

MODEL_ATTRIBUTE_PREFIXES: Final = (
    "gen_ai.",
    "llm.",
    "openinference.",
    "ai.operationId",
    "ai.model.",
    "langfuse.observation.",
    "langsmith.",
    "traceloop.",
    "litellm.",
    "anthropic.",
)
"""A span is a model span, and is exported, when the key of one of its attributes at its end starts with one of these."""

COLLECTOR_ID: Final = "tallystick.collector.id"
COLLECTOR_BATCH: Final = "tallystick.collector.batch"
COLLECTOR_ENDED: Final = "tallystick.collector.ended"
COLLECTOR_LOST: Final = "tallystick.collector.lost"
"""On the resource of each batch that a collector sends: which process of it (16 hex digits, new in every fork), the number of the batch in
that process from 1, and how many model spans had ended and were lost in it until then."""
