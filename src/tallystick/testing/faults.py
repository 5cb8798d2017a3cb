"""Providers that misbehave: what a word of a model's name asks for besides usage and failure, as in `gpt-lab-midline`."""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from tallystick.testing.protocol import Json

Fault = Literal["again", "garbage", "html", "shape", "strings", "negative", "nousage", "midline", "short", "stall", "event"]
"""again: the first request of this model gets 429, a further one its answer
garbage, html, shape: 200 with what is no JSON, with a page, with JSON of another shape
strings, negative, nousage: token counts that are texts, that are below zero, that aren't there
midline: the connection breaks in the middle of a line of a stream
short: a stream that ends in the middle of an answer, as if that were all
stall: a stream that says no more in the middle of an answer, and stays open
event: an error event in the middle of a stream
"""

FAULTS: Final[frozenset[Fault]] = frozenset(get_args(Fault))

BODIES: Final[Mapping[str, tuple[str, bytes]]] = {
    "garbage": ("application/json", b'{"id": "x", \x00\xff not json'),
    "html": ("text/html", b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"),
    "shape": ("application/json", b'{"choices": 7, "content": "x", "usage": [1], "type": null, "output": {"a": 1}}'),
}
"""Media type and body of an answer that isn't the protocol's."""

_USAGES: Final = ("usage", "usageMetadata")

EVENTS_BEFORE: Final = 6
"""Pieces of a stream before it goes wrong."""


def fault(model: str) -> Fault | None:
    words = model.split("-")
    return next((one for one in FAULTS if one in words), None)


def spoiled(data: Json | str, kind: Fault | None) -> Any:
    """`data` with the token counts that the fault asks for, wherever they stand."""
    if kind not in ("strings", "negative", "nousage") or isinstance(data, str):
        return data
    return _spoiled(json.loads(json.dumps(data)), kind)


def _spoiled(value: Any, kind: Fault) -> Any:
    if isinstance(value, list):
        return [_spoiled(item, kind) for item in value]
    if not isinstance(value, dict):
        return value
    found: Json = {}
    for key, item in value.items():
        if key not in _USAGES:
            found[key] = _spoiled(item, kind)
        elif isinstance(item, dict) and kind != "nousage":
            found[key] = {name: _count(number, kind) for name, number in item.items()}
    return found


def _count(value: Any, kind: Fault) -> Any:
    if isinstance(value, dict):
        return {key: _count(item, kind) for key, item in value.items()}
    if not isinstance(value, int):
        return value
    return str(value) if kind == "strings" else -value
