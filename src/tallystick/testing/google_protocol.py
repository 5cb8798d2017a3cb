"""Google's protocol: bodies and server-sent events of generated content, and embeddings, of the Gemini and the Vertex API."""

import re
from typing import Any, Final

from tallystick.testing.protocol import WORDS, Events, Json, Operation
from tallystick.testing.truth import ServedCall, Usage

_USAGES: Final = {
    "": Usage(input=1200, output=50),
    "cached": Usage(input=176, output=50, cache_read=1024),
    "reason": Usage(input=1200, output=450, reasoning=400),
    "audio": Usage(input=1200, output=50, audio_input=200),
    "searched": Usage(input=1200, output=50),
}
_TOOL_USE: Final = 200
"""Of the input of a `searched` call: told beside the prompt, not within."""
_STATUS: Final = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}


def content(call: ServedCall, usage: Usage, body: Json) -> Json:
    parts: list[Json] = [_thought()] if usage.reasoning else []
    parts += [_tool_call()] if _calls_tool(call) else [{"text": "".join(WORDS)}]
    return _response(call, parts, _usage(call, usage, usage.output - usage.reasoning), "STOP")


def content_events(call: ServedCall, usage: Usage, body: Json) -> Events:
    """Each has the usage so far: thoughts are counted at once, candidates grow. The last has the reason for the end."""
    pieces = [_tool_call()] if _calls_tool(call) else [{"text": word} for word in WORDS]
    if usage.reasoning:
        yield None, _response(call, [_thought()], _usage(call, usage, 0))
    for number, piece in enumerate(pieces, 1):
        final = number == len(pieces)
        told = _usage(call, usage, usage.output - usage.reasoning if final else number)
        yield None, _response(call, [piece], told, "STOP" if final else None)


def embedding(call: ServedCall, usage: Usage, body: Json) -> Json:
    return {"embedding": {"values": [0.1, 0.2, 0.3]}, "usageMetadata": {"promptTokenCount": usage.input_total}}


def embeddings(call: ServedCall, usage: Usage, body: Json) -> Json:
    values = [{"values": [0.1, 0.2, 0.3]} for _ in body.get("requests", [])]
    return {"embeddings": values, "usageMetadata": {"promptTokenCount": usage.input_total}}


def error(status: int) -> Json:
    return {"error": {"code": status, "message": f"asked for {status}", "status": _STATUS.get(status, "UNKNOWN")}}


def _calls_tool(call: ServedCall) -> bool:
    return "tools" in call.request_model.split("-")


def _thought() -> Json:
    return {"text": "…", "thought": True}


def _tool_call() -> Json:
    return {"functionCall": {"name": "tick", "args": {"of": "tally"}}}


def _response(call: ServedCall, parts: list[Json], usage: Json, finish_reason: str | None = None) -> Json:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    return {
        "candidates": [candidate | ({"finishReason": finish_reason} if finish_reason else {})],
        "usageMetadata": usage,
        "modelVersion": call.response_model,
        "responseId": call.response_id,
    }


def _usage(call: ServedCall, usage: Usage, candidates: int) -> Json:
    """As with the real one, what is 0 is left out. The prompt's count includes what was cached; thoughts stand beside candidates."""
    tool_use = _TOOL_USE if "searched" in call.request_model.split("-") else 0
    prompt = usage.input_total - tool_use
    spoken = usage.audio_input
    told = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": candidates,
        "toolUsePromptTokenCount": tool_use,
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": prompt + tool_use + candidates + usage.reasoning,
    }
    modalities = [{"modality": "TEXT", "tokenCount": prompt - spoken}]
    modalities += [{"modality": "AUDIO", "tokenCount": spoken}] if spoken else []
    return {name: count for name, count in told.items() if count} | {"promptTokensDetails": modalities}


def _is_token(name: str | None, data: Any) -> bool:
    return any(("text" in part and not part.get("thought")) or "functionCall" in part for part in _parts(data))


def _parts(data: Any) -> list[Json]:
    return [part for candidate in data["candidates"] for part in candidate["content"]["parts"]]


def _path(method: str) -> re.Pattern[str]:
    return re.compile(rf"/v1\w*/(?:.+/)?models/(?P<model>[^/:]+):{method}")


OPERATIONS: Final = (
    Operation(path=_path("generateContent"), usages=_USAGES, answer=content, error=error),
    Operation(
        path=_path("streamGenerateContent"),
        usages=_USAGES,
        answer=content,
        error=error,
        events=content_events,
        is_token=_is_token,
        is_last=lambda name, data: "finishReason" in data["candidates"][0],
        always_streamed=True,
    ),
    Operation(path=_path("embedContent"), usages={"": Usage(input=8, output=0)}, answer=embedding, error=error),
    Operation(path=_path("batchEmbedContents"), usages={"": Usage(input=8, output=0)}, answer=embeddings, error=error),
)
