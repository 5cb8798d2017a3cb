"""Trace files: recognised by what is in them, read line by line, bad lines named and passed over."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

AZURE_HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
MOONCAKE_KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
KNOWN = (
    f"known are Azure's CSV ({AZURE_HEADER.decode()}) and Mooncake's JSON lines ({', '.join(MOONCAKE_KEYS)}), "
    "plain or gzip-compressed"
)

MOST_TOKENS = 100_000_000
"""A count above this is a broken line and not a call: no model reads or writes as much."""

_TIME = re.compile(rb"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?")
_BOM = b"\xef\xbb\xbf"
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


class NotATrace(ValueError):
    """The file is none of the known formats, or holds no call at all. The message says what was found."""


class Request(NamedTuple):
    """One line of a trace.

    `at_ns` is nanoseconds since 1970 (UTC) where the trace has dates, else since the trace's start; `input_tokens` counts the
    whole prompt; `blocks` are the ids of the prompt's blocks of 512 tokens, empty where the trace has none.
    """

    line: int
    at_ns: int
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]


class BadLine(NamedTuple):
    """A line that holds no call: its number, counted from 1, and what is wrong with it."""

    line: int
    problem: str


@dataclass(frozen=True)
class TraceFile:
    """A recognised trace.

    `digest` identifies its content, however the file is named or compressed; `lines` are those that should hold a call.
    """

    path: Path
    format: Literal["azure", "mooncake"]
    digest: bytes
    lines: int
    first_ns: int
    last_ns: int

    @property
    def dated(self) -> bool:
        """Whether times are dates, and not counted from the trace's start."""
        return self.format == "azure"

    def requests(self) -> Iterator[Request | BadLine]:
        """Every line in the file's order, a damaged one as `BadLine`; a compressed file that breaks off ends with one."""
        parse = _parse_azure if self.format == "azure" else _parse_mooncake
        number = 0
        with _open(self.path) as stream:
            try:
                for number, raw in enumerate(stream, 1):
                    text = raw.strip()
                    if not text or text.removeprefix(_BOM) == AZURE_HEADER:
                        continue
                    try:
                        yield parse(number, text)
                    except ValueError as error:
                        yield BadLine(number, str(error))
            except _DAMAGE as error:
                yield BadLine(number + 1, f"the compressed file breaks off here ({error})")


def open_trace(path: Path) -> TraceFile:
    """Recognise a trace by its first line and read it once through for its identity, length and time range.

    Raises NotATrace; OSError where the file can't be read.
    """
    digest, lines, first = blake2b(digest_size=16), 0, b""
    with _open(path) as stream:
        try:
            for raw in stream:
                digest.update(raw)
                text = raw.strip()
                if text:
                    lines += 1
                    first = first or text
        except _DAMAGE as error:
            if not first:
                raise NotATrace(f"{path}: not a readable gzip file ({error})") from error
    if not first:
        raise NotATrace(f"{path}: the file is empty")
    if first.removeprefix(_BOM) == AZURE_HEADER:
        return _described(path, "azure", digest.digest(), lines - 1)
    if first.startswith(b"{") and all(b'"%s"' % key.encode() in first for key in MOONCAKE_KEYS):
        return _described(path, "mooncake", digest.digest(), lines)
    shown = first[:60].decode("utf-8", "backslashreplace")
    raise NotATrace(f"{path}: line 1 is of no known trace: {shown!r}; {KNOWN}")


def _described(path: Path, form: Literal["azure", "mooncake"], digest: bytes, lines: int) -> TraceFile:
    trace = TraceFile(path, form, digest, lines, 0, 0)
    first: int | None = None
    last = 0
    for item in trace.requests():
        if isinstance(item, Request):
            first = item.at_ns if first is None else min(first, item.at_ns)
            last = max(last, item.at_ns)
    if first is None:
        raise NotATrace(f"{path}: no line of it holds a call")
    return TraceFile(path, form, digest, lines, first, last)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as probe:
        compressed = probe.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")


def _parse_azure(line: int, text: bytes) -> Request:
    fields = text.split(b",")
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields instead of 3")
    return Request(line, _nanoseconds(fields[0]), _count("ContextTokens", fields[1]), _count("GeneratedTokens", fields[2]), ())


def _nanoseconds(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"TIMESTAMP is no time: {_shown(text)}")
    whole, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat((whole + (zone or b"")).decode())
    except ValueError:
        raise ValueError(f"TIMESTAMP is no time: {_shown(text)}") from None
    seconds = int((moment if zone else moment.replace(tzinfo=UTC)).timestamp())
    return seconds * 1_000_000_000 + int((fraction or b"").ljust(9, b"0"))


def _count(name: str, text: bytes) -> int:
    if not text.isdigit():
        raise ValueError(f"{name} is no whole number of tokens: {_shown(text)}")
    return _plausible(name, int(text) if len(text) < 20 else MOST_TOKENS + 1)


def _parse_mooncake(line: int, text: bytes) -> Request:
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    missing = [key for key in MOONCAKE_KEYS if key not in row]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    for key in MOONCAKE_KEYS[:3]:
        if type(row[key]) is not int:
            raise ValueError(f"{key} is no whole number: {_shown(row[key])}")
        if row[key] < 0:
            raise ValueError(f"{key} is negative: {row[key]}")
    blocks = row["hash_ids"]
    if not isinstance(blocks, list) or any(type(block) is not int for block in blocks):
        raise ValueError(f"hash_ids is no list of whole numbers: {_shown(blocks)}")
    milliseconds = row["timestamp"]
    if milliseconds > 10 * 366 * 86_400_000:
        raise ValueError(f"timestamp is more than ten years after the start: {_shown(milliseconds)}")
    input_tokens, output_tokens = (_plausible(key, row[key]) for key in MOONCAKE_KEYS[1:3])
    return Request(line, milliseconds * 1_000_000, input_tokens, output_tokens, tuple(blocks))


def _plausible(name: str, tokens: int) -> int:
    if tokens > MOST_TOKENS:
        raise ValueError(f"{name} is above {MOST_TOKENS:,}")
    return tokens


def _shown(value: object) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return repr(text if len(text) <= 40 else text[:40] + "…")
