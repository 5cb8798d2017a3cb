"""How many tokens a text or a request has, and how that is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tallystick.collectors.tokens.encoders import encoder
from tallystick.collectors.tokens.estimate import estimate_text
from tallystick.collectors.tokens.families import family
from tallystick.collectors.tokens.images import UNKNOWN_SIZE, image_size, image_tokens
from tallystick.collectors.tokens.parts import Image, Unpublished, mapping, pieces
from tallystick.collectors.tokens.tools import CLAUDE_PROMPT, tool_tokens

PER_MESSAGE: Final = 3
PER_NAME: Final = 1
REPLY: Final = 3
"""What OpenAI's chat format adds to the texts of a request, by its cookbook. Other providers publish no such figures: of theirs
`PER_MESSAGE` is counted, which the examples in Anthropic's documentation bear out."""


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens, and on what authority."""

    tokens: int
    source: Literal["tokenizer", "estimate"]
    """`tokenizer`: the model's own, and published formulas for the rest; an OpenAI request of texts and flat tools."""
    encoding: str | None
    """What was counted with; None where nothing but the text was looked at."""
    note: str
    """Why it is an estimate and what isn't in it; '' where there is nothing to say."""


def count_text(model: str, text: str) -> Count:
    """Tokens of `text` alone, as of an answer, or of what is embedded."""
    counting = _Counting(model)
    counting.text(text)
    return counting.count()


def count_messages(model: str, messages: object, tools: object = None, system: object = None) -> Count:
    """Tokens of a request: the forms of OpenAI (chat, Responses), Anthropic, Gemini, Bedrock and Cohere. A string is one message.

    system: Anthropic's `system`, or `instructions` of the Responses API.
    """
    counting = _Counting(model)
    if system:
        counting.message({"role": "system", "content": system})
    for message in messages if isinstance(messages, (list, tuple)) else [messages]:
        counting.message(message)
    if tools:
        counting.tools(list(tools) if isinstance(tools, (list, tuple)) else [tools])
    counting.reply()
    return counting.count()


def count_request(model: str, body: Mapping[str, Any], operation: str = "chat") -> Count:
    """Tokens of the input of a request as it is about to be sent: its JSON body, or the keyword arguments of the call.

    operation: `embeddings` and `text_completion` are of texts or of token ids; any other is of messages.
    """
    if operation in {"embeddings", "text_completion", "completion"}:
        counting = _Counting(model)
        counting.given(body.get("input", body.get("prompt", body.get("texts"))))
        return counting.count()
    config = mapping(body.get("config")) or {}
    system = next((s for name in ("system", "instructions", "system_instruction", "preamble") if (s := body.get(name))), None)
    messages: object = next(
        (m for name in ("messages", "input", "contents", "message", "prompt") if (m := body.get(name)) is not None), []
    )
    return count_messages(
        model,
        messages,
        body.get("tools") or config.get("tools") or (mapping(body.get("toolConfig")) or {}).get("tools"),
        system or config.get("system_instruction"),
    )


class _Counting:
    """Adds up the pieces of one request."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._family = family(model)
        self._encoder = encoder(self._family.encoding)
        self.tokens = 0
        self._exact = 0
        """Of the tokens, those by a formula, which no factor applies to."""
        self._notes: dict[str, int] = {}

    def text(self, text: str) -> None:
        self.tokens += self._count(text)

    def given(self, texts: object) -> None:
        """A text, a list of texts, token ids, or a list of such."""
        if isinstance(texts, str):
            self.text(texts)
        elif isinstance(texts, int):
            self._formula(1)
        elif isinstance(texts, (list, tuple)):
            for one in texts:
                self.given(one)

    def message(self, message: object) -> None:
        self._formula(PER_MESSAGE)
        fields = mapping({"role": "user", "content": message} if isinstance(message, str) else message)
        if fields is None:
            self._note(f"a message of type {type(message).__name__}")
            return
        role, name = fields.get("role"), fields.get("name")
        if isinstance(role, str) and self._family.factor is None:
            self.text(role)
            if isinstance(name, str):
                self.text(name)
                self._formula(PER_NAME)
        # An item of Responses input (a call, a result) has no role and is a part itself.
        for piece in pieces([fields.get("content", fields.get("parts")), fields.get("tool_calls")] if role else fields):
            if isinstance(piece, str):
                self.text(piece)
            elif isinstance(piece, Unpublished):
                self.text(piece.text)
                self._formula(PER_MESSAGE)
                self._notes.setdefault("how calls of tools are written isn't published", 0)
            elif isinstance(piece, Image):
                self._image(piece)
            else:
                self._note(piece.kind)

    def tools(self, tools: list[object]) -> None:
        self.tokens += tool_tokens(tools, self._family.encoding, self._count)
        if "claude" in self._model.lower():
            self._formula(CLAUDE_PROMPT)

    def reply(self) -> None:
        if self._family.factor is None:
            self._formula(REPLY)

    def count(self) -> Count:
        found = self._family
        tokens = math.ceil((self.tokens - self._exact) * (found.factor or 1)) + self._exact
        notes = [found.note] if found.note else []
        if isinstance(self._encoder, str):
            notes.append(f"counted from its characters: {self._encoder}")
        notes += [f"without {number} of unknown size: {what}" if number else what for what, number in self._notes.items()]
        own = found.factor is None and not isinstance(self._encoder, str) and not self._notes
        encoding = None if isinstance(self._encoder, str) else found.encoding
        return Count(tokens, "tokenizer" if own else "estimate", encoding, "; ".join(notes))

    def _formula(self, tokens: int) -> None:
        self.tokens += tokens
        self._exact += tokens

    def _count(self, text: str) -> int:
        return estimate_text(text) if isinstance(self._encoder, str) else self._encoder(text)

    def _image(self, image: Image) -> None:
        size = image_size(image.data) if image.data else None
        tokens = image_tokens(self._model, *(size or UNKNOWN_SIZE), image.detail)
        if tokens is None:
            self._note("image")
            return
        self._formula(tokens)
        if size is None and image.detail != "low":
            self._notes.setdefault("an image of unknown size counts as one of 1024 × 1024", 0)

    def _note(self, kind: str) -> None:
        what = kind[:40]
        self._notes[what] = self._notes.get(what, 0) + 1
