"""Tokens of an image by the formulas that providers publish: data, in images.csv. Pure.

* tiles (OpenAI): scaled into 2048 × 2048, then to a shortest side of 768; so many for each tile of 512, and a base.
* patches (OpenAI's small models): of 32 pixels, scaled down to the most that are allowed; times a factor.
* squares (Claude): of 28 pixels, after the longest edge and their number are cut to a limit.
* crops (Gemini): up to 384 pixels one; a larger one is cut into crops of two thirds of its shorter side, 256 to 768 pixels.
"""

import base64
import csv
import math
import re
import struct
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from tallystick.collectors.tokens.families import readings

UNKNOWN_SIZE: Final = (1024, 1024)
"""What an image is taken for that is behind a URL or in a format that isn't read here."""


class _Formula(NamedTuple):
    method: str
    base: float
    each: float
    edge: int
    most: int


def image_tokens(model: str, width: int, height: int, detail: str = "auto") -> int | None:
    """Tokens of an image of `width` × `height` pixels, None for a model without a published formula. detail: OpenAI's."""
    formula = next((f for name in readings(model) if (f := _formula(name))), None)
    if formula is None or width <= 0 or height <= 0:
        return None
    if formula.method == "tiles":
        return math.ceil(formula.base if detail == "low" else _tiles(formula, width, height))
    if formula.method == "patches":
        return math.ceil(_patches(width, height, formula.most) * formula.each)
    if formula.method == "squares":
        shrink = min(1.0, formula.edge / max(width, height))
        return min(formula.most, math.ceil(width * shrink / 28) * math.ceil(height * shrink / 28))
    if max(width, height) <= formula.edge:
        return math.ceil(formula.base)
    crop = min(768, max(256, math.floor(min(width, height) / 1.5)))
    return math.ceil(width / crop) * math.ceil(height / crop) * math.ceil(formula.each)


def image_size(data: str) -> tuple[int, int] | None:
    """(width, height) of an image in base64 or a `data:` URL, from the first kilobytes of a PNG, GIF, WebP or JPEG."""
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    try:
        head = base64.b64decode(encoded[: 4 * 16_384])
        if head.startswith(b"\x89PNG"):
            return struct.unpack(">II", head[16:24])
        if head.startswith(b"GIF8"):
            return struct.unpack("<HH", head[6:10])
        if head[8:15] == b"WEBPVP8":
            return _webp(head)
        if head.startswith(b"\xff\xd8"):
            return _jpeg(head)
    except (ValueError, struct.error, IndexError):
        pass
    return None


def _tiles(formula: _Formula, width: float, height: float) -> float:
    shrink = min(1.0, formula.edge / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    return formula.base + formula.each * math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)


def _patches(width: float, height: float, most: int) -> int:
    number = math.ceil(width / 32) * math.ceil(height / 32)
    if number <= most:
        return number
    shrink = math.sqrt(32 * 32 * most / (width * height))
    across, down = width * shrink / 32, height * shrink / 32
    shrink *= min(math.floor(across) / across, math.floor(down) / down) if min(across, down) >= 1 else 1
    return min(most, math.ceil(round(width * shrink / 32, 6)) * math.ceil(round(height * shrink / 32, 6)))


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        # Start of frame, of any kind; C4, C8 and CC in between are tables.
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None


def _formula(name: str) -> _Formula | None:
    # 'gpt-4o' is no beginning of 'gpt-4o1', 'gpt-5' none of 'gpt-5.4', whose formula may be another.
    return next((f for prefix, f in _table() if re.match(rf"{re.escape(prefix)}(?![a-z0-9.])", name)), None)


@cache
def _table() -> tuple[tuple[str, _Formula], ...]:
    return tuple(sorted(_rows(), key=lambda row: -len(row[0])))


def _rows() -> Iterator[tuple[str, _Formula]]:
    text = files("tallystick.collectors.tokens").joinpath("images.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        numbers = (float(row["base"]), float(row["each"]), int(row["edge"] or 0), int(row["most"] or 0))
        yield row["prefix"], _Formula(row["method"], *numbers)
