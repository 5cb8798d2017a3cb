"""boto3's Bedrock runtime: its calls, and what an answer tells. Its input leaves out what was read from the cache or written to it."""

import base64
import json
from typing import Any, Final

from tallystick.collectors.calls.answers import Answer, Messages, count, from_json
from tallystick.collectors.calls.methods import Arguments, Asked, Client, Method, ObservedCall
from tallystick.collectors.calls.pieces import Pieces
from tallystick.collectors.calls.request import Usage, gates
from tallystick.collectors.calls.watched import Body, watched


class Converse(Answer):
    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.complete = True
        self.usage = answer.get("usage")
        message = answer.get("output", {}).get("message", {})
        self.tool_calls = sum("toolUse" in block for block in message.get("content", ()))

    def _buckets(self, usage: Any) -> Usage | None:
        return converse_usage(usage)


class ConverseStream(Pieces):
    """A piece is the JSON of an event."""

    __slots__ = ()

    def _raw(self, chunk: Any) -> bytes | None:
        payload: bytes = chunk.payload
        if chunk.headers.get(":event-type") == "contentBlockStart" and b'"toolUse"' in payload:
            self.tool_calls += 1
        return payload

    def _first(self, piece: bytes) -> str:
        delta = from_json(piece).delta or {}
        return (
            "content"
            if delta.get("text")
            else "tool_call"
            if "toolUse" in delta
            else "reasoning"
            if "reasoningContent" in delta
            else ""
        )

    def _last(self, piece: bytes) -> None:
        self.usage = from_json(piece).usage
        self.complete = self.usage is not None

    def _all(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            delta = from_json(piece).delta or {}
            found = (
                delta.get("text")
                or (delta.get("toolUse") or {}).get("input")
                or (delta.get("reasoningContent") or {}).get("text")
            )
            self.parts.append(found or "")

    def _buckets(self, usage: Any) -> Usage | None:
        return converse_usage(usage)


class InvokedModel(Answer):
    """Told by the headers, whoever made the model: the body is the application's to read."""

    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.complete = True
        self.usage = answer["ResponseMetadata"]["HTTPHeaders"]

    def _buckets(self, usage: Any) -> Usage | None:
        def tokens(name: str) -> int | None:
            told = usage.get(f"x-amzn-bedrock-{name}-token-count", "")
            return int(told) if told.isdecimal() else None

        if (given := tokens("input")) is None:
            return None
        return Usage(
            given, tokens("cache-read-input"), tokens("cache-write-input"), None, tokens("output") or 0, None, "provider"
        )


class InvokedStream(Pieces):
    """A piece is the JSON of a `chunk`, in which the maker's own event is encoded; the last has Bedrock's own counts."""

    __slots__ = ()

    def _raw(self, chunk: Any) -> bytes | None:
        return chunk.payload if chunk.headers.get(":event-type") == "chunk" else None

    def _first(self, piece: bytes) -> str:
        event = _decoded(piece)
        delta = (event.contentBlockDelta or event).delta
        if not isinstance(delta, dict):
            # Makers with another shape: their first event that has any text.
            return "content" if event.get("generation") or event.get("outputText") or event.get("outputs") else ""
        if delta.get("text"):
            return "content"
        if delta.get("thinking") or "reasoningContent" in delta:
            return "reasoning"
        return "tool_call" if "toolUse" in delta or "partial_json" in delta else ""

    def _last(self, piece: bytes) -> None:
        self.usage = _decoded(piece).get("amazon-bedrock-invocationMetrics")
        self.complete = self.usage is not None

    def _all(self, pieces: list[bytes]) -> None:
        events = [_decoded(piece) for piece in pieces]
        claude = Messages()
        for event in events:
            if event.type is not None:
                claude.see(event)
            elif event.contentBlockDelta:
                self.parts.append(event.contentBlockDelta.delta.get("text") or "")
        if claude.usage is not None:
            self.response_id, self.model, self.tool_calls = claude.response_id, claude.model, claude.tool_calls
            self.usage = claude.told()
            self.parts += claude.parts

    def _buckets(self, usage: Any) -> Usage | None:
        if isinstance(usage, Usage):
            return usage
        given = count(usage.inputTokenCount)
        if given is None:
            return None
        read, written = count(usage.cacheReadInputTokenCount), count(usage.cacheWriteInputTokenCount)
        return Usage(given, read, written, None, count(usage.outputTokenCount), None, "provider")


def converse_usage(usage: Any) -> Usage | None:
    """Of the `usage` of Converse, as a dictionary. Reasoning isn't told."""
    given = count(usage.get("inputTokens"))
    if given is None:
        return None
    details = {one.get("ttl"): count(one.get("inputTokens")) for one in usage.get("cacheDetails") or ()}
    written = count(usage.get("cacheWriteInputTokens"))
    hour = details.get("1h") if details else None
    five = written if hour is None or written is None else written - hour
    return Usage(given, count(usage.get("cacheReadInputTokens")), five, hour, count(usage.get("outputTokens")), None, "provider")


def _decoded(piece: bytes) -> Any:
    return from_json(base64.b64decode(json.loads(piece)["bytes"]))


_OPERATIONS: Final[dict[str, tuple[str, type[Answer], bool]]] = {
    "Converse": ("converse", Converse, False),
    "ConverseStream": ("converse", ConverseStream, True),
    "InvokeModel": ("invoke_model", InvokedModel, False),
    "InvokeModelWithResponseStream": ("invoke_model", InvokedStream, True),
}
"""What the operation is called here, what reads its answer, and whether that is a stream."""


def _asked(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
    operation, given = args
    # All services of AWS pass here.
    if operation not in _OPERATIONS or client.meta.service_model.service_name != "bedrock-runtime":
        return None
    name, answer, streamed = _OPERATIONS[operation]
    model = given.get("modelId", "")
    body = {**given, "model": model}
    if name == "invoke_model":
        if "embed" in model:
            name = "embeddings"
        if gates:
            body = {**json.loads(given["body"]), "model": model}
    return Asked(name, body, streamed, client.meta.endpoint_url, "aws.bedrock", answer())


def _renamed(args: tuple[Any, ...], kwargs: dict[str, Any], model: str) -> Arguments:
    return (args[0], {**args[1], "modelId": model}), kwargs


def _answered(call: ObservedCall, result: Any) -> None:
    call.attempts = 1 + result["ResponseMetadata"].get("RetryAttempts", 0)
    if not call.streamed:
        call.answer.whole(result)
        return
    stream = result.get("stream") or result["body"]
    # In place, so that it stays botocore's EventStream. Its generator takes the raw stream when it starts.
    stream._event_generator = watched(stream._event_generator, call)
    stream._raw_stream = Body(stream._raw_stream, call)


CLIENT: Final = Client(
    "boto3",
    {"botocore.client": (Method("BaseClient", "_make_api_call", "call", _asked, _answered, _renamed),)},
)
