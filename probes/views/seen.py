"""A request as another tool sees it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import NS_PER_MS, output_tokens
from tallystick.probes.records import Event, Kind, Record


class Seen(NamedTuple):
    """Milliseconds from sending, to what the tool takes for the first token and for the end; each: a token after the first.

    chunks: the events that it counts. output_ms: to the first text that isn't reasoning.
    """

    first_ms: float
    whole_ms: float
    each_ms: float | None
    tokens: int | None
    chunks: Sequence[Event]
    output_ms: float | None

    @property
    def gaps_ms(self) -> list[float]:
        """Between chunks."""
        return [(after.at_ns - before.at_ns) / NS_PER_MS for before, after in pairwise(self.chunks)]


def seen(record: Record, chunks: Sequence[Event], tokens: int | None) -> Seen:
    """chunks: at least one; the answer ends with the last."""
    first, whole = ((chunks[index].at_ns - record.sent_ns) / NS_PER_MS for index in (0, -1))
    output_ns = next((event.at_ns for event in record.events if event.kind in (Kind.CONTENT, Kind.TOOL)), None)
    return Seen(
        first,
        whole,
        (whole - first) / (tokens - 1) if tokens is not None and tokens > 1 else None,
        tokens,
        chunks,
        None if output_ns is None else (output_ns - record.sent_ns) / NS_PER_MS,
    )


def told(record: Record) -> int | None:
    """Output tokens by usage, else as counted."""
    tokens = output_tokens(record)
    return None if tokens is None else tokens.number


def within(target: Target, first_ms: float, each_ms: float | None, whole_ms: float) -> bool:
    """Of a target, as all three judge: by times from sending. each_ms None: it misses what is asked of it."""
    asked = ((first_ms, target.ttft_ms), (each_ms, target.tpot_ms), (whole_ms, target.e2e_ms))
    return all(most is None or (value is not None and value <= most) for value, most in asked)
