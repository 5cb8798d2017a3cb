"""What was seen of a call, written into its span where that doesn't say it already. In the thread that exports."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from tallystick.collectors.calls.call import Call
from tallystick.collectors.calls.request import Answered, Refusal, Usage, UsageSource
from tallystick.schema import names
from tallystick.schema.dialects import COUNTS, attributes, dialects

Attributes = dict[str, Any]

_TIER: Final = {"messages": "anthropic.response.service_tier"}
_OPENAI_TIER: Final = "openai.response.service_tier"


def merge(span: ReadableSpan, call: Call) -> ReadableSpan:
    """`span` with what `call` knows. Where the instrumentation has counted too, its counts stay, unless they are none, or of an answer cut short."""
    found = _Found(span.attributes or {})
    call.read()
    call.answer.gather()
    if isinstance(call.error, Refusal):
        _write_refusal(found, call.error)
    elif call.refused:
        found.setdefault(names.USAGE_SOURCE, "none")
    else:
        _write_answer(found, span, call)
    if call.attempts > 1:
        found[names.RETRIES] = call.attempts - 1
    found.write("streamed", "gen_ai.request.stream", call.streamed or None)
    if call.replaced_model:
        found["gen_ai.request.model"] = call.replaced_model
    call.answer.kept.release()
    return with_attributes(span, found)


class _Found(Attributes):
    """The attributes of a span, and which of the ledger's columns they fill, under whatever name."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        # By `copy`, as the mapping on a span takes a lock for each item.
        super().__init__(said.copy() if isinstance(said, MappingProxyType) else said)
        known = _columns()
        for name in [name for name, value in self.items() if known.get(name) in COUNTS and not _is_count(value)]:
            del self[name]
        self.columns = {known.get(name) for name in self}

    def write(self, column: str, name: str, value: Any) -> None:
        """Writes what is known where no attribute fills that column."""
        if value is not None and column not in self.columns:
            self[name] = value
            self.columns.add(column)

    def take(self, *columns: str) -> None:
        """Removes what fills `columns`."""
        known = _columns()
        for name in [name for name in self if known.get(name) in columns]:
            del self[name]
        self.columns -= set(columns)


def with_attributes(span: ReadableSpan, changed: Attributes) -> ReadableSpan:
    """`span` with other attributes: those of an ended one can't be changed."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=changed,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _write_refusal(found: _Found, refusal: Refusal) -> None:
    """Of a call that a gate stopped: what answered instead is, if it is a call, one of its own."""
    found.take(*COUNTS, "response_id")
    found[names.USAGE_SOURCE] = "none"
    if not isinstance(refusal, Answered):
        found["error.type"] = type(refusal).__name__


def _write_answer(found: _Found, span: ReadableSpan, call: Call) -> None:
    answer = call.answer
    found.write("response_id", "gen_ai.response.id", _text(answer.response_id))
    found.write("response_model", "gen_ai.response.model", _text(answer.model))
    found.write("service_tier", _TIER.get(call.operation, _OPENAI_TIER), _text(answer.tier))
    if answer.tool_calls:
        found.setdefault(names.TOOL_CALLS, answer.tool_calls)
    if answer.first_ns and span.start_time is not None and answer.first_ns >= span.start_time:
        found.setdefault(names.TIME_TO_FIRST_TOKEN, (answer.first_ns - span.start_time) / 1e9)
        found.setdefault(names.FIRST_TOKEN_KIND, answer.first_kind)
    usage = counted(call)
    if usage is None:
        return
    if usage.source != "provider":
        # A count of an answer cut short is a placeholder, whoever wrote it.
        found.take("output")
    found.setdefault(names.USAGE_SOURCE, usage.source)
    written = _sum(usage.cache_write_5m_tokens, usage.cache_write_1h_tokens)
    found.write("input_total", "gen_ai.usage.input_tokens", _total(usage, written, span))
    found.write("output", "gen_ai.usage.output_tokens", usage.output_tokens)
    found.write("cache_read", "gen_ai.usage.cache_read.input_tokens", usage.cache_read_tokens)
    found.write("cache_write", "gen_ai.usage.cache_write.input_tokens", written)
    found.write("reasoning", "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
    if usage.cache_write_1h_tokens or (call.operation == "messages" and usage.cache_write_1h_tokens is not None):
        prefix = "anthropic.usage.cache_creation.ephemeral_"
        found.write("cache_write_5m", f"{prefix}5m_input_tokens", usage.cache_write_5m_tokens)
        found.write("cache_write_1h", f"{prefix}1h_input_tokens", usage.cache_write_1h_tokens)
    for column, name, tokens in zip(("audio_input", "audio_output"), ("input", "output"), answer.audio, strict=True):
        found.write(column, f"gen_ai.usage.audio.{name}_tokens", tokens or None)


def counted(call: Call) -> Usage | None:
    """The usage as the provider told it, completed by counting; None where nothing is known."""
    answer = call.answer
    told = answer.told()
    if answer.complete and told is not None:
        return told
    if not (call.streamed and call.answered):
        return None
    source: UsageSource = "estimated" if answer.complete else "partial"
    model = _text(answer.model) or call.model
    output = answer.kept.tokens + _count_text(model, "".join(answer.kept.texts)) if answer.first_ns else None
    if told is not None:
        return Usage(
            told.input_tokens, told.cache_read_tokens, told.cache_write_5m_tokens, told.cache_write_1h_tokens,
            output if told.output_tokens is None else told.output_tokens, told.reasoning_tokens, source,
        )  # fmt: skip
    return Usage(_count_input(model, call), None, None, None, output, None, source)


def _count_text(model: str, text: str) -> int:
    from tallystick.collectors.tokens import count_text

    return count_text(model, text).tokens


def _count_input(model: str, call: Call) -> int | None:
    from tallystick.collectors.tokens import count_request

    body = call.answer.kept.asked
    return None if body is None else count_request(model, body, call.operation).tokens


def _total(usage: Usage, written: int | None, span: ReadableSpan) -> int | None:
    """The input as the writer of `span` counts it."""
    if usage.input_tokens is None or _excludes_cache(span.instrumentation_scope.name if span.instrumentation_scope else ""):
        return usage.input_tokens
    return usage.input_tokens + (usage.cache_read_tokens or 0) + (written or 0)


@cache
def _excludes_cache(scope: str) -> bool:
    found = next(one for one in dialects() if scope.startswith(one.scope) or one.scope == f"={scope}")
    return found.input_excludes_cache == "any"


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


@cache
def _columns() -> dict[str, str]:
    return {attribute.attribute: attribute.column for attribute in attributes()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
