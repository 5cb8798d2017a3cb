"""Cohere's protocol, version 2: chat and embeddings."""

import re
from typing import Any, Final

from tallystick.testing.protocol import WORDS, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

_USAGES: Final = {
    "": Usage(input=1200, output=50),
    "cached": Usage(input=176, output=50, cache_read=1024),
}
_UNBILLED: Final = 66
"""Tokens of Cohere's own preamble: in `tokens`, not in `billed_units`."""


def chat(call: ServedCall, usage: Usage, body: Json) -> Json:
    message: Json = {"role": "assistant", "content": [{"type": "text", "text": "".join(WORDS)}]}
    if _calls_tool(call):
        message = {"role": "assistant", "tool_plan": "…", "tool_calls": [_tool_call()]}
    return {
        "id": call.response_id,
        "finish_reason": _finish_reason(call),
        "message": message,
        "usage": _usage(usage),
    }


def chat_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    def event(name: str, **data: Any) -> tuple[str, Json]:
        return name, {"type": name, **data}

    def message(**parts: Any) -> Json:
        return {"message": parts}

    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield event("message-start", id=call.response_id, delta={"message": start})
    if _calls_tool(call):
        tool = _tool_call()
        arguments = tool["function"]["arguments"]
        begun = tool | {"function": tool["function"] | {"arguments": ""}}
        yield event("tool-plan-delta", delta=message(tool_plan="…"))
        yield event("tool-call-start", index=0, delta=message(tool_calls=begun))
        yield event("tool-call-delta", index=0, delta=message(tool_calls={"function": {"arguments": arguments}}))
        yield event("tool-call-end", index=0)
    else:
        yield event("content-start", index=0, delta=message(content={"type": "text", "text": ""}))
        for word in WORDS:
            yield event("content-delta", index=0, delta=message(content={"text": word}))
        yield event("content-end", index=0)
    yield event("message-end", delta={"finish_reason": _finish_reason(call), "usage": _usage(usage)})


def embeddings(call: ServedCall, usage: Usage, body: Json) -> Json:
    texts = body.get("texts") or []
    return {
        "id": call.response_id,
        "response_type": "embeddings_by_type",
        "embeddings": {"float": [[0.1, 0.2, 0.3] for _ in texts]},
        "texts": texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": usage.input_total}},
    }


def error(status: int) -> Json:
    return {"id": "err_1", "message": f"asked for {status}"}


def _calls_tool(call: ServedCall) -> bool:
    return "tools" in call.request_model.split("-")


def _finish_reason(call: ServedCall) -> str:
    return "TOOL_CALL" if _calls_tool(call) else "COMPLETE"


def _tool_call() -> Json:
    return {"id": "tick_0000", "type": "function", "function": {"name": "tick", "arguments": '{"of": "tally"}'}}


def _usage(usage: Usage) -> Json:
    """The truth is what is billed, and what was cached is part of the prompt."""
    return {
        "billed_units": {"input_tokens": usage.input_total, "output_tokens": usage.output},
        "tokens": {"input_tokens": usage.input_total + _UNBILLED, "output_tokens": usage.output},
        "cached_tokens": usage.cache_read,
    }


OPERATIONS: Final = (
    Operation(
        path=re.compile("/v2/chat"),
        usages=_USAGES,
        answer=chat,
        error=error,
        events=chat_events,
        is_token=lambda name, data: name in ("content-delta", "tool-call-start"),
        is_last=lambda name, data: name == "message-end",
    ),
    Operation(path=re.compile("/v2/embed"), usages={"": Usage(input=8, output=0)}, answer=embeddings, error=error),
)
