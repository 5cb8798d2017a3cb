"""What the provider server served: the true usage of each call, and when its parts left."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal

USAGE_HEADER: Final = "x-tallystick-usage"
"""Request header with a JSON object of `Usage` fields, which replaces the usage that the model's name asks for."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets; only `reasoning` and the audio counts are parts of others."""

    input: int
    """Neither read from the provider's cache nor written to it."""
    output: int
    """With reasoning."""
    cache_read: int = 0
    cache_write_5m: int = 0
    """OpenAI's cache writes, which name no lifetime, are here too."""
    cache_write_1h: int = 0
    reasoning: int = 0
    """Part of `output`."""
    audio_input: int = 0
    """Part of `input`."""
    audio_output: int = 0
    """Part of `output`."""

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h

    @property
    def input_total(self) -> int:
        return self.input + self.cache_read + self.cache_write


Failure = Literal["429", "500", "hang"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a call is answered."""

    usage: Usage
    failure: Failure | None = None
    slow: bool = False


@dataclass(slots=True)
class ServedCall:
    """One HTTP request of a model, written as it goes on. Times are UTC nanoseconds, None if not reached."""

    path: str
    request_model: str
    response_model: str
    response_id: str
    streamed: bool
    usage: Usage | None
    """None for a call that failed."""
    headers: Mapping[str, str]
    """Of the request, names in lowercase, without keys."""
    started_ns: int
    status: int | None = None
    """None while it hangs."""
    usage_sent: bool = False
    """Whether the client was told the whole usage: not by a stream cut short, nor by one that wasn't asked to."""
    first_token_ns: int | None = None
    ended_ns: int | None = None
    """When the last byte was about to leave."""
    cut_short: bool = field(default=False)
    """The client went away before the end."""


def behaviour(usages: Mapping[str, Usage], model: str, usage_header: str | None) -> Behaviour:
    """What the dash-separated words of a model's name ask for, as in `gpt-lab-cached`: those of `usages`, `slow` for
    time between chunks, `429`, `500`, `hang` for failure. ValueError for a bad header.
    """
    words = model.split("-")
    usage = next((usages[word] for word in words if word in usages), usages[""])
    failure: Failure | None = "429" if "429" in words else "500" if "500" in words else "hang" if "hang" in words else None
    return Behaviour(_given(usage_header) if usage_header else usage, failure, "slow" in words)


def _given(header: str) -> Usage:
    counts = json.loads(header)
    known = {one.name for one in fields(Usage)}
    if not isinstance(counts, dict) or not counts.keys() <= known or not {"input", "output"} <= counts.keys():
        raise ValueError(f"{USAGE_HEADER} must be an object of token counts, with input and output: {sorted(known)}")
    return Usage(**{name: int(count) for name, count in counts.items()})
