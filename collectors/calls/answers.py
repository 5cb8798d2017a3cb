"""What is read of an answer, whole or as it streams: one class for each operation's shape.

Any attribute may be missing or of another type: it comes from a provider. `see` is called for each chunk, between the library and
the application, so it does no more than to look at a few attributes.
"""

import json
from time import time_ns
from typing import Any, Final

from tallystick.collectors.calls.kept import Kept
from tallystick.collectors.calls.request import Usage

AT_ONCE: Final = 64
"""Pieces of text that are joined and accounted for together."""


class Json(dict[str, Any]):
    """A JSON object whose members are read as attributes, as those of the libraries' models; None where there is none."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def from_json(text: str | bytes) -> Any:
    """ValueError for what is no JSON."""
    return json.loads(text, object_hook=Json)


class Answer:
    """What is known of one answer so far."""

    __slots__ = ("complete", "first_kind", "first_ns", "kept", "model", "parts", "response_id", "tier", "tool_calls", "usage")

    def __init__(self) -> None:
        self.response_id: Any = None
        self.model: Any = None
        self.tier: Any = None
        self.usage: Any = None
        """The provider's object, as it is."""
        self.tool_calls = 0
        self.complete = False
        """Whether the answer came to its end."""
        self.first_ns = 0
        """When the first token came, 0 where none did."""
        self.first_kind = ""
        self.parts: list[str] = []
        self.kept = Kept()

    def whole(self, answer: Any) -> None:
        self.complete = True
        self.response_id, self.model = _get(answer, "id"), _get(answer, "model")
        self.tier, self.usage = _get(answer, "service_tier"), _get(answer, "usage")

    def see(self, chunk: Any) -> None:
        """One event of a stream."""
        raise NotImplementedError

    def told(self) -> Usage | None:
        """The usage as the provider told it, None where it didn't."""
        return None if self.usage is None else self._buckets(self.usage)

    @property
    def audio(self) -> tuple[int | None, int | None]:
        """Tokens of audio in the input and in the output."""
        return None, None

    def heard(self, text: str, kind: str) -> None:
        """A piece of the answer."""
        parts = self.parts
        parts.append(text)
        if not self.first_ns:
            self.first_ns = time_ns()
            self.first_kind = kind
        elif len(parts) >= AT_ONCE:
            self.gather()

    def gather(self) -> None:
        if self.parts:
            self.kept.add("".join([part for part in self.parts if isinstance(part, str)]))
            self.parts.clear()

    def _buckets(self, usage: Any) -> Usage | None:
        raise NotImplementedError


class OpenAI(Answer):
    """The usage object of OpenAI's, whose input includes the cache, under its older and its newer names."""

    __slots__ = ()

    def _buckets(self, usage: Any) -> Usage | None:
        total = count(_first(usage, "prompt_tokens", "input_tokens"))
        output = count(_first(usage, "completion_tokens", "output_tokens"))
        details = _first(usage, "prompt_tokens_details", "input_tokens_details")
        read, write = count(_get(details, "cached_tokens")), count(_get(details, "cache_write_tokens"))
        reasoning = count(_get(_first(usage, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens"))
        if total is None and output is None:
            return None
        uncached = None if total is None else total - (read or 0) - (write or 0)
        if uncached is not None and uncached < 0:
            uncached = None
        return Usage(uncached, read, write, None if write is None else 0, output, reasoning, "provider")

    @property
    def audio(self) -> tuple[int | None, int | None]:
        return (
            count(_get(_get(self.usage, "prompt_tokens_details"), "audio_tokens")),
            count(_get(_get(self.usage, "completion_tokens_details"), "audio_tokens")),
        )


class Chat(OpenAI):
    """`/chat/completions`."""

    __slots__ = ()

    def whole(self, answer: Any) -> None:
        super().whole(answer)
        for choice in _list(_get(answer, "choices")):
            self.tool_calls += len(_list(_get(_get(choice, "message"), "tool_calls")))

    def see(self, chunk: Any) -> None:
        if self.response_id is None:
            self.response_id, self.model = chunk.id, chunk.model
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is None:
                pass
            elif text := delta.content:
                # As `heard`, without a call: the path of nearly every chunk.
                parts = self.parts
                parts.append(text)
                if not self.first_ns:
                    self.first_ns, self.first_kind = time_ns(), "content"
                elif len(parts) >= AT_ONCE:
                    self.gather()
            elif delta.tool_calls:
                self._tools(delta.tool_calls)
            else:
                self._other(delta)
            if choice.finish_reason:
                self.complete = True
                self.tier = _get(chunk, "service_tier")
        if chunk.usage is not None:
            self.usage = chunk.usage

    def _tools(self, calls: Any) -> None:
        for call in calls:
            if call.id:
                self.tool_calls += 1
            function = call.function
            if function is not None:
                self.heard((function.name or "") + (function.arguments or ""), "tool_call")

    def _other(self, delta: Any) -> None:
        # `reasoning_content` and `reasoning` are what vLLM, DeepSeek and others call it; none of OpenAI's fields.
        extra = delta if isinstance(delta, dict) else delta.model_extra or {}
        reasoning = extra.get("reasoning_content") or extra.get("reasoning")
        if isinstance(reasoning, str):
            self.heard(reasoning, "reasoning")
        elif refusal := _get(delta, "refusal"):
            self.heard(refusal, "content")


class Completion(OpenAI):
    """`/completions`."""

    __slots__ = ()

    def see(self, chunk: Any) -> None:
        if self.response_id is None:
            self.response_id, self.model = chunk.id, chunk.model
        if chunk.usage is not None:
            self.usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.text:
                self.heard(choice.text, "content")
            if choice.finish_reason:
                self.complete = True


class Embeddings(OpenAI):
    """`/embeddings`: nothing is generated."""

    __slots__ = ()

    def _buckets(self, usage: Any) -> Usage | None:
        told = count(_get(usage, "prompt_tokens"))
        return None if told is None else Usage(told, None, None, None, 0, None, "provider")


_RESPONSE_PIECES: Final = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "content",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "tool_call",
    "response.custom_tool_call_input.delta": "tool_call",
}
_RESPONSE_ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


class Responses(OpenAI):
    """`/responses`."""

    __slots__ = ()

    def whole(self, answer: Any) -> None:
        super().whole(answer)
        self.tool_calls = sum(str(_get(item, "type")).endswith("_call") for item in _list(_get(answer, "output")))

    def see(self, chunk: Any) -> None:
        kind = _RESPONSE_PIECES.get(chunk.type)
        if kind is not None:
            self.heard(chunk.delta, kind)
        elif chunk.type in _RESPONSE_ENDS:
            self.whole(chunk.response)
        elif chunk.type == "response.created":
            self.response_id, self.model = chunk.response.id, chunk.response.model
        elif chunk.type == "response.output_item.added" and str(chunk.item.type).endswith("_call"):
            self.tool_calls += 1


_DELTAS: Final = {
    "text_delta": ("text", "content"),
    "thinking_delta": ("thinking", "reasoning"),
    "input_json_delta": ("partial_json", "tool_call"),
}


class Messages(Answer):
    """Anthropic's `/v1/messages`, whose input leaves the cache out."""

    __slots__ = ("output",)

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None
        """The usage of the last `message_delta`. That of `message_start` has 1 for the output, which nobody counted."""

    def whole(self, answer: Any) -> None:
        super().whole(answer)
        self.output = self.usage
        self.tier = _get(self.usage, "service_tier")
        self.tool_calls = sum(str(_get(block, "type")).endswith("tool_use") for block in _list(_get(answer, "content")))

    def see(self, chunk: Any) -> None:
        event = chunk.type
        if event == "content_block_delta":
            delta = chunk.delta
            known = _DELTAS.get(delta.type)
            if known is not None:
                self.heard(getattr(delta, known[0]), known[1])
        elif event == "message_start":
            super().whole(chunk.message)
            self.tier = _get(self.usage, "service_tier")
            self.complete = False
        elif event == "content_block_start":
            if chunk.content_block.type.endswith("tool_use"):
                self.tool_calls += 1
        elif event == "message_delta":
            self.output = chunk.usage
        elif event == "message_stop":
            self.complete = True

    def _buckets(self, usage: Any) -> Usage | None:
        written = _get(usage, "cache_creation")
        five, hour = count(_get(written, "ephemeral_5m_input_tokens")), count(_get(written, "ephemeral_1h_input_tokens"))
        if five is None and hour is None:
            five = count(_get(usage, "cache_creation_input_tokens"))
            hour = None if five is None else 0
        found = Usage(
            # `message_delta` tells the input anew where tools of the server added to it.
            count(_get(self.output, "input_tokens") or _get(usage, "input_tokens")),
            count(_get(usage, "cache_read_input_tokens")),
            five,
            hour,
            count(_get(self.output, "output_tokens")),
            count(_get(_get(self.output, "output_tokens_details"), "thinking_tokens")),
            "provider",
        )
        return None if found.input_tokens is None and found.output_tokens is None else found


ANSWERS: Final[dict[str, type[Answer]]] = {
    "chat": Chat,
    "text_completion": Completion,
    "responses": Responses,
    "embeddings": Embeddings,
    "messages": Messages,
}
"""By the operation of `Request`."""


def count(value: Any) -> int | None:
    """A number of tokens, None for whatever is none."""
    return value if type(value) is int and 0 <= value <= 1_000_000_000 else None


def _get(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, dict) else getattr(of, name, None)


def _first(of: Any, name: str, other: str) -> Any:
    found = _get(of, name)
    return _get(of, other) if found is None else found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
