"""Anthropic's protocol: body and server-sent events of messages."""

import re
from typing import Any, Final

from tallystick.testing.openai_protocol import ARGUMENTS, calls_tool
from tallystick.testing.protocol import WORDS, Event, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

USAGES: Final = {
    "": Usage(input=100, output=42),
    "cached": Usage(input=100, output=42, cache_read=2000),
    "cw": Usage(input=100, output=42, cache_read=1500, cache_write_5m=500, cache_write_1h=200),
    "reason": Usage(input=100, output=442, reasoning=400),
}


_TOOL: Final[Json] = {"type": "tool_use", "id": "toolu_1", "name": "tick", "input": {}}


def _stop_reason(call: ServedCall) -> str:
    return "tool_use" if calls_tool(call) else "end_turn"


def message(call: ServedCall, usage: Usage, body: Json) -> Json:
    content: list[Json] = [{"type": "thinking", "thinking": "…", "signature": "s"}] if usage.reasoning else []
    answer = {**_TOOL, "input": {"of": "tally"}} if calls_tool(call) else {"type": "text", "text": "".join(WORDS)}
    return _message(call, [*content, answer], _stop_reason(call), _usage(usage))


def message_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    """As with the real one, the output count of the first is 1, a placeholder, and the true one comes with `message_delta`."""

    def event(name: str, **data: Any) -> Event:
        return name, {"type": name, **data}

    yield event("message_start", message=_message(call, [], None, {**_usage(usage), "output_tokens": 1}))
    index = 0
    if usage.reasoning:
        yield event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
        yield event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "…"})
        yield event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"})
        yield event("content_block_stop", index=0)
        index = 1
    yield event("content_block_start", index=index, content_block=_TOOL if calls_tool(call) else {"type": "text", "text": ""})
    yield event("ping")
    for piece in ARGUMENTS if calls_tool(call) else WORDS:
        delta = {"type": "input_json_delta", "partial_json": piece} if calls_tool(call) else {"type": "text_delta", "text": piece}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)
    final = {"output_tokens": usage.output, **_details(usage)}
    yield event("message_delta", delta={"stop_reason": _stop_reason(call), "stop_sequence": None}, usage=final)
    yield event("message_stop")


def error(status: int) -> Json:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "api_error"
    return {"type": "error", "error": {"type": kind, "message": f"asked for {status}"}, "request_id": "req_1"}


def _message(call: ServedCall, content: list[Json], stop_reason: str | None, usage: Json) -> Json:
    return {
        "id": call.response_id,
        "type": "message",
        "role": "assistant",
        "model": call.response_model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "service_tier": "standard",
        **_details(usage),
    }


def _details(usage: Usage) -> Json:
    return {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}


OPERATIONS: Final = (
    Operation(
        path=re.compile("/v1/messages"),
        usages=USAGES,
        answer=message,
        error=error,
        events=message_events,
        is_token=lambda name, data: name == "content_block_delta",
        is_last=lambda name, data: name == "message_stop",
        response_id="msg_",
        dated="-20260718",
    ),
)
