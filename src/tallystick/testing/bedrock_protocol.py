"""Bedrock's protocol: Converse, and InvokeModel with bodies of Anthropic, Nova and Titan, each also as an AWS event stream."""

import base64
import binascii
import json
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from tallystick.testing import anthropic_protocol
from tallystick.testing.protocol import WORDS, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

_USAGES: Final = anthropic_protocol.USAGES
_ERRORS: Final = {
    400: "ValidationException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
}
EVENT_STREAM: Final = "application/vnd.amazon.eventstream"


def converse(call: ServedCall, usage: Usage, body: Json) -> Json:
    content: list[Json] = []
    if usage.reasoning:
        content.append({"reasoningContent": {"reasoningText": {"text": "…", "signature": "s"}}})
    content.append({"toolUse": _tool_use() | {"input": {"of": "tally"}}} if _calls_tool(call) else {"text": "".join(WORDS)})
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _stop_reason(call),
        "usage": _usage(usage),
        "metrics": {"latencyMs": 12},
    }


def converse_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    yield "messageStart", {"role": "assistant"}
    index = 0
    if usage.reasoning:
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "…"}}}
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}
        yield "contentBlockStop", {"contentBlockIndex": 0}
        index = 1
    if _calls_tool(call):
        yield "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": _tool_use()}}
        yield "contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": '{"of": "tally"}'}}}
    else:
        for word in WORDS:
            yield "contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": word}}
    yield "contentBlockStop", {"contentBlockIndex": index}
    yield "messageStop", {"stopReason": _stop_reason(call)}
    yield "metadata", {"usage": _usage(usage), "metrics": {"latencyMs": 12}}


def invoke(call: ServedCall, usage: Usage, body: Json) -> Json:
    """The body as the model's maker defines it."""
    if "nova" in call.request_model:
        answer = converse(call, usage, body)
        answer["usage"] = {name.replace("InputTokens", "InputTokenCount"): count for name, count in _usage(usage).items()}
        return answer
    return anthropic_protocol.message(call, usage, body)


def embedding(call: ServedCall, usage: Usage, body: Json) -> Json:
    return {"embedding": [0.1, 0.2, 0.3], "inputTextTokenCount": usage.input_total}


def invoke_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    """Anthropic's events or Nova's, each a `chunk`; the last has Bedrock's own count beside."""
    nova = "nova" in call.request_model
    for name, data in converse_events(call, usage, body) if nova else anthropic_protocol.message_events(call, usage, body):
        assert isinstance(data, dict)
        piece: Json = {str(name): data} if nova else data
        if name in ("metadata", "message_stop"):
            piece = {**piece, "amazon-bedrock-invocationMetrics": _metrics(usage)}
        yield "chunk", {"bytes": base64.b64encode(json.dumps(piece).encode()).decode()}


def error(status: int) -> Json:
    return {"message": f"asked for {status}"}


def event_stream(name: str | None, data: Json | str) -> bytes:
    """One message of the AWS event stream encoding: lengths, headers, payload, with the two checksums."""
    headers = b"".join(
        struct.pack("!B", len(key)) + key + struct.pack("!BH", 7, len(value)) + value
        for key, value in (
            (b":event-type", (name or "").encode()),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    payload = json.dumps(data).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))


def _calls_tool(call: ServedCall) -> bool:
    return "tools" in call.request_model.split("-")


def _stop_reason(call: ServedCall) -> str:
    return "tool_use" if _calls_tool(call) else "end_turn"


def _tool_use() -> Json:
    return {"toolUseId": "tooluse_0000", "name": "tick"}


def _usage(usage: Usage) -> Json:
    """The input's count is what was neither read from the cache nor written to it; reasoning isn't told."""
    details = [{"ttl": "1h", "inputTokens": usage.cache_write_1h}, {"ttl": "5m", "inputTokens": usage.cache_write_5m}]
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input_total + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
        "cacheDetails": [detail for detail in details if detail["inputTokens"]],
    }


def _metrics(usage: Usage) -> Json:
    return {
        "inputTokenCount": usage.input,
        "outputTokenCount": usage.output,
        "invocationLatency": 12,
        "firstByteLatency": 6,
        "cacheReadInputTokenCount": usage.cache_read,
        "cacheWriteInputTokenCount": usage.cache_write,
    }


def _token_headers(call: ServedCall, usage: Usage) -> Mapping[str, str]:
    counts = {
        "input": usage.input,
        "output": usage.output,
        "cache-read-input": usage.cache_read,
        "cache-write-input": usage.cache_write,
    }
    return _request_id(call, usage) | {f"x-amzn-bedrock-{name}-token-count": str(count) for name, count in counts.items()}


def _request_id(call: ServedCall, usage: Usage) -> dict[str, str]:
    return {"x-amzn-requestid": call.response_id}


def _content_type(call: ServedCall, usage: Usage) -> dict[str, str]:
    return _request_id(call, usage) | {"x-amzn-bedrock-content-type": "application/json"}


def _is_token(name: str | None, data: Any) -> bool:
    return name == "contentBlockDelta" and "reasoningContent" not in data["delta"]


def _is_chunk_token(name: str | None, data: Any) -> bool:
    piece = json.loads(base64.b64decode(data["bytes"]))
    delta = piece.get("contentBlockDelta", piece).get("delta", {})
    return bool({"text", "toolUse"} & delta.keys())


def _operation(
    action: str,
    answer: Callable[[ServedCall, Usage, Json], Json],
    models: str = "[^/]+",
    usages: Mapping[str, Usage] = _USAGES,
    **more: Any,
) -> Operation:
    return Operation(
        path=re.compile(f"/model/(?P<model>{models})/{action}"),
        usages=usages,
        answer=answer,
        error=error,
        error_headers=lambda status: {"x-amzn-errortype": _ERRORS.get(status, "ValidationException")},
        frame=event_stream,
        media_type=EVENT_STREAM,
        always_streamed=True,
        **more,
    )


OPERATIONS: Final = (
    _operation("converse", converse, headers=_request_id),
    _operation(
        "converse-stream",
        converse,
        headers=_request_id,
        events=converse_events,
        is_token=_is_token,
        is_last=lambda name, data: name == "metadata",
    ),
    _operation(
        "invoke", embedding, models="[^/]*titan-embed[^/]*", usages={"": Usage(input=8, output=0)}, headers=_token_headers
    ),
    _operation("invoke", invoke, headers=_token_headers),
    _operation(
        "invoke-with-response-stream",
        invoke,
        headers=_content_type,
        events=invoke_events,
        is_token=_is_chunk_token,
        is_last=lambda name, data: b"amazon-bedrock-invocationMetrics" in base64.b64decode(data["bytes"]),
    ),
)
