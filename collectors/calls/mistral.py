"""mistralai: its calls, and what an answer tells."""

from typing import Any, Final

from tallystick.collectors.calls.answers import Answer, Chat, Embeddings
from tallystick.collectors.calls.methods import Asked, Client, Method, ObservedCall
from tallystick.collectors.calls.watched import Body, async_watched, watched


class MistralChat(Chat):
    """Of completions. A piece of content is a text, or a list of texts and thoughts."""

    __slots__ = ()

    def see(self, chunk: Any) -> None:
        data = chunk.data
        if self.response_id is None:
            self.response_id, self.model = data.id, data.model
        if data.usage is not None:
            self.usage = data.usage
        for choice in data.choices:
            content = choice.delta.content
            if isinstance(content, str):
                if content:
                    self.heard(content, "content")
            elif content:
                self._parts(content)
            for call in choice.delta.tool_calls or ():
                self.tool_calls += 1
                self.heard(f"{call.function.name}{call.function.arguments}", "tool_call")
            if choice.finish_reason:
                self.complete = True

    def _parts(self, parts: Any) -> None:
        for part in parts:
            if part.type == "text":
                self.heard(part.text, "content")
            elif part.type == "thinking":
                self.heard("".join(getattr(thought, "text", "") for thought in part.thinking), "reasoning")


def _asked(operation: str, answer: type[Answer], streamed: bool = False) -> Any:
    def asked(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        url = client.sdk_configuration.get_server_details()[0]
        return Asked(operation, kwargs, streamed, url, "mistral_ai", answer())

    return asked


def _watch(call: ObservedCall, stream: Any) -> None:
    """In place, so that the stream stays of its type."""
    stream.generator = (async_watched if hasattr(stream.generator, "__anext__") else watched)(stream.generator, call)
    stream.response.stream = Body(stream.response.stream, call)


def _completions(owner: str, operation: str) -> tuple[Method, ...]:
    whole, streamed = _asked(operation, MistralChat), _asked(operation, MistralChat, streamed=True)
    return (
        Method(owner, "complete", "call", whole),
        Method(owner, "complete_async", "async call", whole),
        Method(owner, "stream", "call", streamed, _watch),
        Method(owner, "stream_async", "async call", streamed, _watch),
    )


_EMBED: Final = _asked("embeddings", Embeddings)

CLIENT: Final = Client(
    "mistralai",
    {
        "mistralai.client.chat": _completions("Chat", "chat"),
        "mistralai.client.fim": _completions("Fim", "text_completion"),
        "mistralai.client.embeddings": (
            Method("Embeddings", "create", "call", _EMBED),
            Method("Embeddings", "create_async", "async call", _EMBED),
        ),
    },
)
