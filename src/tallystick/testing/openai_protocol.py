"""OpenAI's protocol: bodies and server-sent events of chat completions, responses and embeddings."""

import re
from typing import Any, Final

from tallystick.testing.protocol import CREATED, WORDS, Event, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

_USAGES: Final = {
    "": Usage(input=1200, output=50),
    "cached": Usage(input=176, output=50, cache_read=1024),
    "cw": Usage(input=388, output=50, cache_read=512, cache_write_5m=300),
    "reason": Usage(input=1200, output=450, reasoning=400),
    "audio": Usage(input=1200, output=50, audio_input=200, audio_output=20),
}


ARGUMENTS: Final = ('{"of": ', '"tally"}')
CHAT_TOOL: Final[Json] = {"id": "call_1", "type": "function", "function": {"name": "tick", "arguments": "".join(ARGUMENTS)}}
_TOOL_ITEM: Final[Json] = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "tick",
    "arguments": "".join(ARGUMENTS),
}


def calls_tool(call: ServedCall) -> bool:
    """A model with the word `tools` answers with a call of the tool `tick`."""
    return "tools" in call.request_model.split("-")


def _chat_answer(call: ServedCall) -> Json:
    return {"content": None, "tool_calls": [CHAT_TOOL]} if calls_tool(call) else {"content": "".join(WORDS)}


def chat(call: ServedCall, usage: Usage, body: Json) -> Json:
    return {
        "id": call.response_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": call.response_model,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", **_chat_answer(call), "refusal": None},
                "logprobs": None,
                "finish_reason": "tool_calls" if calls_tool(call) else "stop",
            }
        ],
        "usage": _chat_usage(usage),
    }


def chat_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    """The first has the role only, the last is `[DONE]`."""
    include_usage = asks_for_usage(body)

    def chunk(choices: list[Json], **more: Any) -> Json:
        return {
            "id": call.response_id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": call.response_model,
            "service_tier": "default",
            "choices": choices,
            **({"usage": None} if include_usage else {}),
            **more,
        }

    def choice(delta: Json, finish_reason: str | None = None) -> list[Json]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

    yield None, chunk(choice({"role": "assistant", "content": "", "refusal": None}))
    if calls_tool(call):
        for piece in ("", *ARGUMENTS):
            begun: Json = (
                {"function": {"arguments": piece}} if piece else CHAT_TOOL | {"function": {"name": "tick", "arguments": ""}}
            )
            yield None, chunk(choice({"tool_calls": [{"index": 0, **begun}]}))
    else:
        for word in WORDS:
            yield None, chunk(choice({"content": word}))
    yield None, chunk(choice({}, "tool_calls" if calls_tool(call) else "stop"))
    if include_usage:
        yield None, chunk([], usage=_chat_usage(usage))
    yield None, "[DONE]"


def response(call: ServedCall, usage: Usage, body: Json) -> Json:
    answer = _TOOL_ITEM if calls_tool(call) else _message("completed", [_text("".join(WORDS))])
    return _response(call, "completed", [answer], _response_usage(usage))


def response_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    number = 0

    def event(name: str, /, **data: Any) -> Event:
        nonlocal number
        number += 1
        return name, {"type": name, "sequence_number": number - 1, **data}

    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    text = "".join(WORDS)
    yield event("response.created", response=_response(call, "in_progress", [], None))
    yield event("response.in_progress", response=_response(call, "in_progress", [], None))
    if calls_tool(call):
        yield event("response.output_item.added", output_index=0, item=_TOOL_ITEM | {"arguments": "", "status": "in_progress"})
        for piece in ARGUMENTS:
            yield event("response.function_call_arguments.delta", item_id="fc_1", output_index=0, delta=piece)
        done = {"item_id": "fc_1", "output_index": 0, "name": "tick", "arguments": "".join(ARGUMENTS)}
        yield event("response.function_call_arguments.done", **done)
        yield event("response.output_item.done", output_index=0, item=_TOOL_ITEM)
        yield event("response.completed", response=response(call, usage, body))
        return
    yield event("response.output_item.added", output_index=0, item=_message("in_progress", []))
    yield event("response.content_part.added", **place, part=_text(""))
    for word in WORDS:
        yield event("response.output_text.delta", **place, delta=word, logprobs=[])
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=_text(text))
    yield event("response.output_item.done", output_index=0, item=_message("completed", [_text(text)]))
    yield event("response.completed", response=response(call, usage, body))


def embeddings(call: ServedCall, usage: Usage, body: Json) -> Json:
    given = body.get("input")
    inputs = len(given) if isinstance(given, list) else 1
    return {
        "object": "list",
        "model": call.response_model,
        "data": [{"object": "embedding", "index": index, "embedding": [0.1, 0.2, 0.3]} for index in range(inputs)],
        "usage": {"prompt_tokens": usage.input_total, "total_tokens": usage.input_total},
    }


def error(status: int) -> Json:
    kind = "rate_limit_exceeded" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": f"asked for {status}", "type": kind, "param": None, "code": kind}}


def asks_for_usage(body: Json) -> bool:
    """Chat completions tell the usage of a stream only where they are asked to."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _is_chat_token(name: str | None, data: Any) -> bool:
    return not isinstance(data, str) and any(
        choice["delta"].get("content") or choice["delta"].get("tool_calls") for choice in data["choices"]
    )


def _message(status: str, content: list[Json]) -> Json:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(call: ServedCall, status: str, output: list[Json], usage: Json | None) -> Json:
    return {
        "id": call.response_id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": call.response_model,
        "output": output,
        "usage": usage,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def _chat_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_total,
        "completion_tokens": usage.output,
        "total_tokens": usage.input_total + usage.output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": usage.audio_input,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _response_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input_total,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input_total + usage.output,
    }


OPERATIONS: Final = (
    Operation(
        path=re.compile("/v1/chat/completions"),
        usages=_USAGES,
        answer=chat,
        error=error,
        events=chat_events,
        is_token=_is_chat_token,
        is_last=lambda name, data: bool(data == "[DONE]"),
        tells_usage=asks_for_usage,
        response_id="chatcmpl-",
        dated="-2026-07-18",
    ),
    Operation(
        path=re.compile("/v1/responses"),
        usages=_USAGES,
        answer=response,
        error=error,
        events=response_events,
        is_token=lambda name, data: name in ("response.output_text.delta", "response.function_call_arguments.delta"),
        is_last=lambda name, data: name == "response.completed",
        response_id="resp_",
        dated="-2026-07-18",
    ),
    Operation(
        path=re.compile("/v1/embeddings"),
        usages={"": Usage(input=8, output=0)},
        answer=embeddings,
        error=error,
        response_id="emb_",
    ),
)
