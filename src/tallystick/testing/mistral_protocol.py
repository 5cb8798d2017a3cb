"""Mistral's protocol, below `/mistral` because its paths are OpenAI's: chat and fill-in-the-middle completions, embeddings."""

import re
from typing import Any, Final

from tallystick.testing.protocol import CREATED, WORDS, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

_USAGES: Final = {
    "": Usage(input=1200, output=50),
    "cached": Usage(input=176, output=50, cache_read=1024),
}


def chat(call: ServedCall, usage: Usage, body: Json) -> Json:
    message: Json = {"role": "assistant", "content": "".join(WORDS), "tool_calls": None}
    if _calls_tool(call):
        message = {"role": "assistant", "content": "", "tool_calls": [_tool_call()]}
    return {
        "id": call.response_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": call.response_model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(call)}],
        "usage": _usage(usage),
    }


def chat_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    """The first has the role only; usage comes unasked, with the reason for the end."""

    def chunk(delta: Json, finish_reason: str | None = None, **more: Any) -> Json:
        return {
            "id": call.response_id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": call.response_model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
            **more,
        }

    yield None, chunk({"role": "assistant", "content": ""})
    if _calls_tool(call):
        yield None, chunk({"content": "", "tool_calls": [_tool_call()]})
    else:
        for word in WORDS:
            yield None, chunk({"content": word})
    yield None, chunk({"content": ""}, _finish_reason(call), usage=_usage(usage))
    yield None, "[DONE]"


def embeddings(call: ServedCall, usage: Usage, body: Json) -> Json:
    given = body.get("input")
    inputs = len(given) if isinstance(given, list) else 1
    return {
        "id": call.response_id,
        "object": "list",
        "model": call.response_model,
        "data": [{"object": "embedding", "index": index, "embedding": [0.1, 0.2, 0.3]} for index in range(inputs)],
        "usage": {"prompt_tokens": usage.input_total, "completion_tokens": 0, "total_tokens": usage.input_total},
    }


def error(status: int) -> Json:
    kind = "rate_limited" if status == 429 else "invalid_request_error" if status < 500 else "internal_server_error"
    return {"object": "error", "message": f"asked for {status}", "type": kind, "param": None, "code": str(status)}


def _calls_tool(call: ServedCall) -> bool:
    return "tools" in call.request_model.split("-")


def _finish_reason(call: ServedCall) -> str:
    return "tool_calls" if _calls_tool(call) else "stop"


def _tool_call() -> Json:
    return {"id": "call_0000", "type": "function", "index": 0, "function": {"name": "tick", "arguments": '{"of": "tally"}'}}


def _usage(usage: Usage) -> Json:
    """The prompt's count includes what was cached, which is told only if there is any."""
    told: Json = {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output,
    }
    return told | ({"prompt_tokens_details": {"cached_tokens": usage.cache_read}} if usage.cache_read else {})


def _is_token(name: str | None, data: Any) -> bool:
    return not isinstance(data, str) and any(
        choice["delta"].get("content") or choice["delta"].get("tool_calls") for choice in data["choices"]
    )


OPERATIONS: Final = (
    Operation(
        path=re.compile("/mistral/v1/(?:chat|fim)/completions"),
        usages=_USAGES,
        answer=chat,
        error=error,
        events=chat_events,
        is_token=_is_token,
        is_last=lambda name, data: not isinstance(data, str) and "usage" in data,
    ),
    Operation(path=re.compile("/mistral/v1/embeddings"), usages={"": Usage(input=8, output=0)}, answer=embeddings, error=error),
)
