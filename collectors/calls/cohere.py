"""cohere, version 2 of its interface: its calls, and what an answer tells."""

from typing import Any, Final

from tallystick.collectors.calls.answers import Answer, count
from tallystick.collectors.calls.methods import Asked, Client, Method
from tallystick.collectors.calls.request import Usage


class Cohere(Answer):
    """Tokens are those that are billed: the others include Cohere's own preamble. What was cached is among them."""

    __slots__ = ()

    def _buckets(self, usage: Any) -> Usage | None:
        billed = getattr(usage, "billed_units", None)
        total, output = _count(getattr(billed, "input_tokens", None)), _count(getattr(billed, "output_tokens", None))
        if total is None:
            return None
        read = _count(getattr(usage, "cached_tokens", None))
        read = None if read is None else min(read, total)
        return Usage(total - (read or 0), read, None, None, output, None, "provider")


class CohereChat(Cohere):
    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.complete = True
        self.response_id, self.usage = answer.id, answer.usage
        self.tool_calls = len(answer.message.tool_calls or ())

    def see(self, chunk: Any) -> None:
        event = chunk.type
        if event == "content-delta":
            content = chunk.delta.message.content
            if content.text:
                self.heard(content.text, "content")
            elif content.thinking:
                self.heard(content.thinking, "reasoning")
        elif event == "tool-call-start":
            self.tool_calls += 1
            self.heard(chunk.delta.message.tool_calls.function.name, "tool_call")
        elif event == "tool-call-delta":
            self.heard(chunk.delta.message.tool_calls.function.arguments, "tool_call")
        elif event == "tool-plan-delta":
            self.heard(chunk.delta.message.tool_plan, "content")
        elif event == "message-start":
            self.response_id = chunk.id
        elif event == "message-end":
            self.usage = chunk.delta.usage
            self.complete = True


class CohereEmbedding(Cohere):
    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.complete = True
        self.response_id, self.usage = answer.id, answer.meta

    def _buckets(self, usage: Any) -> Usage | None:
        told = _count(getattr(getattr(usage, "billed_units", None), "input_tokens", None))
        return None if told is None else Usage(told, None, None, None, 0, None, "provider")


def _count(value: Any) -> int | None:
    """Cohere's counts are decimal numbers."""
    return count(int(value)) if isinstance(value, float) and value.is_integer() else count(value)


def _asked(operation: str, answer: type[Answer], streamed: bool = False) -> Any:
    def asked(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        url = client._raw_client._client_wrapper.get_base_url()
        return Asked(operation, kwargs, streamed, url, "cohere", answer())

    return asked


_CHAT: Final = _asked("chat", CohereChat)
_STREAM: Final = _asked("chat", CohereChat, streamed=True)
_EMBED: Final = _asked("embeddings", CohereEmbedding)

CLIENT: Final = Client(
    "cohere",
    {
        "cohere.v2.client": (
            Method("V2Client", "chat", "call", _CHAT),
            Method("AsyncV2Client", "chat", "async call", _CHAT),
            Method("V2Client", "chat_stream", "generator", _STREAM),
            Method("AsyncV2Client", "chat_stream", "async generator", _STREAM),
            Method("V2Client", "embed", "call", _EMBED),
            Method("AsyncV2Client", "embed", "async call", _EMBED),
        )
    },
)
