"""What the provider server needs to know of a provider's protocol: each of its operations is data."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tallystick.testing.truth import ServedCall, Usage

Json = dict[str, Any]
Event = tuple[str | None, Json | str]
"""Name and data of one piece of a streamed answer."""
Events = Iterator[Event]

WORDS: Final = ("tick", " tock", " goes", " the", " tally")
"""The pieces of every answer."""
CREATED: Final = 1_767_225_600  # 2026-01-01; a fixed answer makes runs comparable


def sse(name: str | None, data: Json | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to call a model. A provider's module has them in `OPERATIONS`; the first whose path matches is taken."""

    path: re.Pattern[str]
    """Of the whole path; its group `model` names the model, where that isn't in the body."""
    usages: Mapping[str, Usage]
    """What a word of the model's name asks for; `""` is the rest."""
    answer: Callable[[ServedCall, Usage, Json], Json]
    """The body, told the request's."""
    error: Callable[[int], Json]
    events: Callable[[ServedCall, Usage, Json], Events] | None = None
    """The pieces of a streamed answer; None where it can't be streamed."""
    is_token: Callable[[str | None, Any], bool] = lambda name, data: False
    """Whether a piece has something generated in it."""
    is_last: Callable[[str | None, Any], bool] = lambda name, data: False
    """Whether it is the one after which the client knows everything that it is told."""
    always_streamed: bool = False
    """Where the path says so; elsewhere the body's `stream` does."""
    tells_usage: Callable[[Json], bool] = lambda body: True
    """Whether a streamed answer to this request tells its usage."""
    frame: Callable[[str | None, Json | str], bytes] = sse
    media_type: str = "text/event-stream"
    """Of a streamed answer."""
    response_id: str = ""
    """What response ids begin with; where that is nothing, they are UUIDs."""
    dated: str = ""
    """What is added to the model's name in the answer."""
    headers: Callable[[ServedCall, Usage], Mapping[str, str]] = lambda call, usage: {}
    """Of an answer, further ones."""
    error_headers: Callable[[int], Mapping[str, str]] = lambda status: {}

    def streamed(self, body: Json) -> bool:
        return self.events is not None and (self.always_streamed or bool(body.get("stream")))
