"""The most that a request may take: its input, and as much output as it allows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from tallystick.collectors.calls.request import Request, Usage
from tallystick.collectors.guard.accounts import Amount
from tallystick.collectors.guard.pricing import Rates, cost

UNLIMITED: Final = 4_096
"""Output tokens that are reserved for a request which names no limit. What it generates beyond is spent all the same."""

MEDIUM: Final = 4_096
"""Tokens of an image, a file or a sound at most, where they aren't counted one by one."""

PER_PART: Final = 8
"""Tokens that a message or another part of a request may take beside its text."""

MARGIN: Final = Decimal("1.25")
"""What a count without the model's own tokenizer is multiplied with: docs/tokens.md has how far off it can be."""

_LIMITS: Final = (
    ("max_completion_tokens",), ("max_output_tokens",), ("max_tokens",), ("maxTokens",), ("inferenceConfig", "maxTokens"),
    ("config", "max_output_tokens"), ("config", "maxOutputTokens"), ("generationConfig", "maxOutputTokens"),
)  # fmt: skip
"""Where requests limit their output: OpenAI, Responses, Anthropic, Mistral and Cohere, Bedrock, Gemini."""

_ANSWERS: Final = (("n",), ("config", "candidate_count"), ("generationConfig", "candidateCount"))

_MEDIA: Final = frozenset({"image_url", "input_audio", "input_image", "file_data", "data", "bytes", "inline_data", "inlineData"})
"""Keys of what isn't text."""

_DEEPEST: Final = 100


@dataclass(frozen=True, slots=True)
class WorstCase:
    """Tokens at most."""

    input_tokens: int
    output_tokens: int
    exact: bool
    """Whether the input was counted, not only bounded by its size."""

    def amount(self, request: Request, rates: Rates | None) -> Amount:
        """rates: None where the model has no price. All input is written to the provider's cache, where that may happen and costs more."""
        tokens = self.input_tokens + self.output_tokens
        if rates is None:
            return Amount(None, tokens)
        found = rates.of_size(self.input_tokens)
        read, write = [found.input], [found.output, found.reasoning]
        if request.library == "openai":
            # It writes to its cache without being asked.
            read.append(found.cache_write_5m)
        else:
            read += [{"5m": found.cache_write_5m, "1h": found.cache_write_1h}[life] for life in _lives(request.body)]
        if "audio" in (request.body.get("modalities") or ()):
            read.append(found.audio_input)
            write.append(found.audio_output)
        return Amount(self.input_tokens * max(read) + self.output_tokens * max(write) + found.request, tokens)


def bounded(request: Request) -> WorstCase:
    """In microseconds: no tokenizer makes more tokens of a text than it has bytes in UTF-8."""
    return WorstCase(_bytes(request.body, 0), most_output(request), False)


def counted(request: Request) -> WorstCase:
    """Counted as the model would, as far as that can be known; never more than `bounded`. Milliseconds for a long prompt."""
    from tallystick.collectors.tokens import count_request

    found = count_request(request.model, request.body, request.operation)
    tokens = found.tokens if found.source == "tokenizer" else int(found.tokens * MARGIN) + 1
    bound = bounded(request)
    return WorstCase(min(tokens, bound.input_tokens), bound.output_tokens, True)


def most_output(request: Request) -> int:
    """What the request says, for each answer that it asks for."""
    if request.operation == "embeddings":
        return 0
    said = next((limit for path in _LIMITS if (limit := _at(request.body, path)) is not None), UNLIMITED)
    answers = next((number for path in _ANSWERS if (number := _at(request.body, path)) is not None), 1)
    return said * max(answers, 1)


def taken(usage: Usage, worst: WorstCase, rates: Rates | None) -> Amount:
    """What a call took by its usage; what that doesn't tell is taken for the worst."""
    known = usage
    if usage.input_tokens is None:
        known = replace(known, input_tokens=worst.input_tokens)
    if usage.output_tokens is None:
        known = replace(known, output_tokens=worst.output_tokens)
    tokens = sum(filter(None, (
        known.input_tokens, known.cache_read_tokens, known.cache_write_5m_tokens, known.cache_write_1h_tokens, known.output_tokens,
    )))  # fmt: skip
    return Amount(None if rates is None else cost(rates, known) if tokens else Decimal(0), tokens)


def _at(body: Mapping[str, Any], path: tuple[str, ...]) -> int | None:
    found: Any = body
    for name in path:
        found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _lives(body: Mapping[str, Any]) -> set[str]:
    """For how long parts of the request ask to be cached."""
    found: set[str] = set()
    waiting: list[Any] = [body]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for name in ("cache_control", "cachePoint"):
                if isinstance(asked := part.get(name), dict):
                    found.add("1h" if asked.get("ttl") == "1h" else "5m")
            waiting += part.values()
        elif isinstance(part, (list, tuple)):
            waiting += part
    return found


def _bytes(part: Any, depth: int) -> int:
    if isinstance(part, str):
        return len(part) if part.isascii() else len(part.encode(errors="replace"))
    if isinstance(part, (int, float)) or part is None:
        return PER_PART
    if depth > _DEEPEST or isinstance(part, (bytes, bytearray)):
        return MEDIUM
    if isinstance(part, (list, tuple)):
        return sum([_bytes(value, depth + 1) for value in part])
    if not isinstance(part, dict):
        # Keyword arguments may hold objects of the library.
        return _bytes(vars(part), depth + 1) if hasattr(part, "__dict__") else len(repr(part))
    size = PER_PART
    for name, value in part.items():
        size += MEDIUM if name in _MEDIA and value else _bytes(value, depth + 1) + len(str(name))
    return size
