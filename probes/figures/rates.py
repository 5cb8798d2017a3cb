"""Throughput of a stage: over which stretch of it, of what, with an interval.

The whole window runs from the first measured request's due time (closed loop: sending) to the end of the last. At its ends the engine isn't
at the stage's load: before the first answer ended, and after the last request was sent. Between these lies the steady window, over which
rates are taken where it is at least half of the whole and ten requests ended, else over the whole, as a lower bound; `Window.steady` says it.

What a request brought is spread evenly over its generated events, and those within the window count. This takes tokens when they come, not all
when an answer ends, and so needs no long stage; that the engine worked on a prompt before its first token is left out at both ends alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from tallystick.probes.figures.measures import generated
from tallystick.probes.figures.percentiles import Figure, Floats, student
from tallystick.probes.records import Outcome, Record

METHOD: Final = "rate in the window, interval of batch means"
SLICES: Final = 10
"""Of the window, for batch means (Law, Simulation Modeling and Analysis, 9.5.3): how rates vary within this stage, not between runs."""
FEWEST: Final = 10
"""Requests that a steady window needs; three for each slice before there is an interval."""


@dataclass(frozen=True, slots=True)
class Window:
    """Nanoseconds of the run. ramp_share: of the whole, what lies before the first answer's end and after the last sending."""

    from_ns: int
    until_ns: int
    steady: bool
    ramp_share: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until_ns - self.from_ns) / 1e9


def window(records: Sequence[Record]) -> Window | None:
    """Of measured records. None: no request ended well, or all in no time."""
    ended = [record.ended_ns for record in records if record.outcome is Outcome.OK]
    if not ended:
        return None
    begin = min(record.sent_ns if record.scheduled_ns is None else record.scheduled_ns for record in records)
    end = max(record.ended_ns for record in records)
    inner, outer = min(ended), max(record.sent_ns for record in records)
    if end <= begin:
        return None
    ramp = 1 - max(0, outer - inner) / (end - begin)
    within = sum(inner <= one <= outer for one in ended)
    if ramp <= 0.5 and within >= FEWEST:
        return Window(inner, outer, True, ramp)
    return Window(begin, end, False, ramp)


def offered_rate(records: Sequence[Record]) -> float | None:
    """Requests a second that were due, by the schedule itself: a Poisson one's differs from its mean. None in a closed loop."""
    due = sorted(record.scheduled_ns for record in records if record.scheduled_ns is not None)
    return (len(due) - 1) / ((due[-1] - due[0]) / 1e9) if len(due) > 1 and due[-1] > due[0] else None


def answered_rate(records: Sequence[Record]) -> float | None:
    """Answers a second, from the first's end to the last's: that of an engine which keeps up is the one offered, however long answers take."""
    ended = sorted(record.ended_ns for record in records if record.outcome is Outcome.OK)
    return (len(ended) - 1) / ((ended[-1] - ended[0]) / 1e9) if len(ended) > 1 and ended[-1] > ended[0] else None


def shares(answers: Sequence[Record], over: Window) -> Floats:
    """Which part of each fell into each slice of the window: answers × SLICES."""
    edges = np.linspace(over.from_ns, over.until_ns, SLICES + 1)
    parts = np.zeros((len(answers), SLICES))
    for row, record in zip(parts, answers, strict=True):
        times = np.array([event.at_ns for event in generated(record)] or [record.ended_ns], np.float64)
        within = np.searchsorted(times, edges, side="right")
        row[:] = np.diff(within) / len(times)
    return parts


def rate(name: str, unit: str, over: Window, parts: Floats, amounts: Sequence[float | None]) -> Figure:
    """A second, of answers whose `shares` are given. amounts: of each, None where it isn't known; of all: so is the rate."""
    if all(amount is None for amount in amounts):
        return Figure(name, unit, None, None, None, 0, METHOD)
    slices = np.array([amount or 0.0 for amount in amounts]) @ parts
    value = float(slices.sum()) / over.seconds
    n = int(np.count_nonzero(parts.any(axis=1)))
    if n < 3 * SLICES:
        return Figure(name, unit, value, None, None, n, METHOD)
    half = student(SLICES - 1) * float((slices * SLICES / over.seconds).std(ddof=1)) / sqrt(SLICES)
    return Figure(name, unit, value, max(0.0, value - half), value + half, n, METHOD)
