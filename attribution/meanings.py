"""What the columns mean that users can ask: the one place where it is said, for docs/charges.md and for clients that list columns."""

from collections.abc import Mapping
from typing import Final

_CHARGES: Final[Mapping[str, Mapping[str, str]]] = {
    "The entry": {
        "entry": "`call`; `void` takes back a call that was entered twice; `reprice` is the difference a changed price makes; "
        "`allocation` shares out cost that no call caused (an idle GPU); `trueup` is the difference to the provider's invoice",
        "calls": "1 for a call, −1 for a void, 0 for the others",
        "entered_at": "when the entry was made",
        "reason": "why a correction was made; `''` for calls",
        "correction": "the id of the run that made the entry ([corrections.md](corrections.md)); `''` for calls, and for voids made when a better span arrived",
    },
    "Who": {
        "tenant": "whose key sent the span; a tenant sees its own rows only",
        "customer": "for which customer of yours",
        "feature": "for which feature of your product",
        "agent": "which agent called; else `gen_ai.agent.name`",
        "team": "which team answers for it",
        "user": "on behalf of which user",
        "session": "in which session or conversation",
        "service": "`service.name` of the process",
        "environment": "`deployment.environment.name` of the process",
        "tags": "free tags of the scope: `tags['plan']` is `''` where there is none",
    },
    "What was called": {
        "provider": "`openai`, `anthropic`, … as the instrumentation names it",
        "request_model": "the model that was asked for",
        "response_model": "the model that answered, by its full name",
        "operation": "`chat`, `text_completion`, `generate_content`, `embeddings`, …",
        "service_tier": "`flex`, `priority`, `batch`, …; the price can depend on it",
        "streamed": "1 if the answer was streamed",
        "status": "how the call ended",
        "error_type": "the error's type; `''` unless `status` is `error`",
        "cache_hit": "which cache of the application answered instead of the model; `''` if the model did",
    },
    "Tokens": {
        "input_tokens": "read at the full rate: without what was read from or written to the provider's cache",
        "cache_read_tokens": "read from the provider's cache",
        "cache_write_5m_tokens": "written to it for five minutes, or for a time not told",
        "cache_write_1h_tokens": "written to it for an hour",
        "output_tokens": "generated, reasoning included",
        "reasoning_tokens": "of `output_tokens`, those spent on reasoning",
        "audio_input_tokens": "of what was read, audio",
        "audio_output_tokens": "of `output_tokens`, audio",
        "image_input_tokens": "of what was read, images",
        "usage_source": "where the counts come from: the `provider`; `estimated` by the instrumentation; `partial` (a stream that was cut off); "
        "`missing`: nobody reported them; `none`: refused by the provider, nothing was generated, the cost is 0",
    },
    "When": {
        "started_at": "when the call began; costs belong to this moment, also those of later corrections",
        "ended_at": "when it ended",
        "ttft_ms": "milliseconds from the start to the first token",
        "ttft_kind": "at which event `ttft_ms` stopped, as the instrumentation defines it",
        "tpot_ms": "milliseconds for each output token after the first: (duration − TTFT) / (output tokens − 1)",
    },
    "Money": {
        "cost_usd": "cost by the price book, in USD; NULL is unpriced, not free",
        "price_id": "the price that was applied; `''` if there is none",
        "reported_cost_usd": "what the instrumentation says that it cost: evidence, not used in `cost_usd`",
    },
    "Where it comes from": {
        "trace_id": "32 hex digits; a correction carries those of the call it corrects",
        "span_id": "16 hex digits, likewise",
        "response_id": "the provider's id of the answer",
    },
}

_OUTCOMES: Final[Mapping[str, Mapping[str, str]]] = {
    "The outcome": {
        "outcome": "what came of the work, in your words: `resolved`, `converted`, …",
        "success": "1 if that was meant to happen",
        "revenue_usd": "what it brought in, in USD; NULL where nobody said",
        "counts": "1; −1 where the call that told it was taken back: `sum(counts)` is the number of outcomes",
        "at": "when it was",
        "entered_at": "when it was reported",
        "id": "the id under which it was reported; `''` if a call's tags told it",
    },
    "Whose, and of which call": {
        "tenant": "whose key reported it; a tenant sees its own rows only",
        "customer": "for which customer of yours",
        "feature": "for which feature of your product",
        "agent": "which agent worked",
        "session": "in which session or conversation",
        "trace_id": "32 hex digits of the trace in which it was; `''` where nobody said",
        "span_id": "16 hex digits of the call whose tags told it; `''` if it was reported",
        "tags": "free tags",
    },
}

_RATES: Final[Mapping[str, Mapping[str, str]]] = {
    "What a token cost": {
        "price_id": "as in `charges`",
        "input_usd": "USD a token read at the full rate",
        "cache_read_usd": "USD a token read from the provider's cache",
        "cache_write_5m_usd": "USD a token written to it for five minutes",
        "cache_write_1h_usd": "USD a token written to it for an hour",
        "output_usd": "USD a token generated",
        "reasoning_usd": "USD a token spent on reasoning",
        "audio_input_usd": "USD a token of audio read",
        "audio_output_usd": "USD a token of audio generated",
        "image_input_usd": "USD a token of an image read",
        "request_usd": "USD a call, beside its tokens",
    },
}

_PROBES: Final[Mapping[str, Mapping[str, str]]] = {
    "The figure": {
        "name": "what was measured: docs/probes.md defines each",
        "unit": "of `value`, `low` and `high`",
        "value": "NULL where it isn't known, or where so few requests don't carry it",
        "low": "the lower end of its interval; NULL where there is none",
        "high": "the upper end",
        "n": "how many requests it is of",
        "method": "how it and its interval were made",
        "request_group": "`cold`, `warm`, `control`, `interleaved` of a cache experiment; `''` of all requests",
    },
    "The stage": {
        "stage": "number in its run, from 0",
        "load": "what was asked of the engine: `poisson 4/s`, `closed 16`",
        "valid": "0 where the stage's figures can't be trusted; the run's report says why",
    },
    "The run": {
        "run": "its id",
        "probe": "name of the configuration",
        "entry": "name of the engine there",
        "engine": "kind of engine: `vllm`, `llamacpp`, …",
        "version": "what the engine says of itself",
        "model": "as the engine calls it",
        "quantisation": "as the configuration says; not verified",
        "state": "`done`, `invalid`, `failed`, `cancelled` or `running`",
        "started_at": "when the run began",
        "ended_at": "when it ended; NULL while it runs",
        "workload": "the same for runs that asked the same in the same way: others aren't comparable",
    },
}

MEANINGS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "charges": _CHARGES,
    "outcomes": _OUTCOMES,
    "price_rates": _RATES,
    "probe_figures": _PROBES,
}
"""View → heading → column → what it means, in Markdown."""

ABOUT: Final[Mapping[str, str]] = {
    "charges": "One row is one entry of the ledger: a call of a model, or a correction of one",
    "outcomes": "One row is what came of a call or a session: a ticket resolved, an order placed",
    "price_rates": "One row is what a price id stands for, of the prices in charges that you may see",
    "probe_figures": "One row is one figure of a stage of a probe's run; operators see all of them, others none",
}
"""View → what a row is."""


def meaning(view: str, column: str) -> str:
    """What a column means; '' of one that isn't described."""
    return next((columns[column] for columns in MEANINGS.get(view, {}).values() if column in columns), "")
