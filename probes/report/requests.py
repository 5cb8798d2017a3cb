"""Of single requests: how their latencies are spread, when each was sent and answered, and which failed."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from tallystick.probes.figures.measures import began_ns, e2e_ns, measured, ttft_ns
from tallystick.probes.records import Outcome, Record, Stage
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.plots import Plot, Point, Series
from tallystick.probes.report.ticks import number

_MOST: Final = 160
"""Points of a distribution: more can't be told apart."""

_TIMELINE: Final = 50
"""Requests of it, a row each."""

_PARTS: Final = (("waiting", 0), ("to the first token", 1), ("generating", 2), ("cancelled", 4), ("failed", 5))
"""Of a request, with their colours."""


def distribution(runs: Sequence[tuple[str, int, Stage]]) -> Block | None:
    """TTFT of each run's stage as a cumulative distribution. runs: name, colour, stage. None where nothing was answered."""
    series, rows = [], []
    for name, colour, stage in runs:
        times = sorted(found / 1e6 for one in measured(stage.records) if _good(one) and (found := _ttft(one)) is not None)
        if not times:
            continue
        shares = [(index + 1) / len(times) for index in range(len(times))]
        chosen = sorted({*range(0, len(times), 1 + len(times) // _MOST), len(times) - 1})
        points = [Point(times[at], 100 * shares[at]) for at in chosen]
        series.append(Series(f"{name}, {stage.load.name}", [Point(times[0], 0), *points], colour, "step", marks=False))
        rows.append([name, stage.load.name, f"{len(times):,}", number(times[0]), number(times[-1])])
    if not series:
        return None
    return Block(
        "How long until the first token",
        plot=Plot(
            "Distribution of the time to first token",
            "Share of requests whose first token came within a time; a curve further left is faster.",
            "ms to first token", "% of requests", series, log_x=True, top=100,
        ),
        table=Table("requests that were answered, with the fastest and the slowest, ms", ("run", "load", "n", "least", "most"), rows, names=2),
    )  # fmt: skip


def timeline(name: str, stage: Stage) -> Block | None:
    """Of a stretch of a stage: when each request was due, sent, answered and ended."""
    records = sorted(measured(stage.records), key=_began)
    if not records:
        return None
    # From the middle: a stage's beginning and end aren't at its load.
    begin = max(0, len(records) - _TIMELINE) // 2
    shown = records[begin : begin + _TIMELINE]
    start = min(_began(one) for one in shown)
    spans: dict[str, list[Point]] = {name: [] for name, _ in _PARTS}
    for index, one in enumerate(shown):
        ttft = ttft_ns(one)
        first = one.ended_ns if ttft is None else one.sent_ns + ttft
        last = first if not _good(one) else one.ended_ns
        moments = (_began(one), one.sent_ns, first, last)
        begun_by = "cancelled" if one.outcome is Outcome.CANCELLED else "to the first token" if _good(one) else "failed"
        for part, (begun, ended) in zip(("waiting", begun_by, "generating"), pairwise(moments), strict=True):
            if ended > begun:
                spans[part] += [Point((at - start) / 1e9, -index, label=_told(one)) for at in (begun, ended)]
    return Block(
        f"{name}, {stage.load.name}: requests {begin + 1:,} to {begin + len(shown):,} of {len(records):,}",
        plot=Plot(
            f"Timeline of requests of {name}", "A row a request, in the order in which they were due, from then to its end.",
            "seconds", "requests", [Series(part, spans[part], colour, "spans") for part, colour in _PARTS if spans[part]], y_ticks=False,
        ),
        table=Table(
            "seconds after the first of them was due",
            ("request", "due", "sent", "first token", "ended", "outcome"),
            [_row(one, start) for one in shown],
        ),
    )  # fmt: skip


def failures(runs: Sequence[tuple[str, Sequence[Stage]]]) -> Block | None:
    """What went wrong, in the engine's or the client's words, and how often. None where nothing did."""
    rows = []
    for name, stages in runs:
        for stage in stages:
            found = Counter(
                (one.outcome, one.status, one.error) for one in measured(stage.records) if one.outcome is not Outcome.OK
            )
            for (outcome, status, error), times in found.most_common(20):
                what = f"{outcome}{'' if status is None else f' (HTTP {status})'}"
                rows.append([name, stage.load.name, what, f"{times:,} of {len(measured(stage.records)):,}", error])
    return (
        Block(table=Table("requests that weren't answered", ("run", "load", "outcome", "requests", "in words"), rows, wide=True))
        if rows
        else None
    )


def _row(one: Record, start: int) -> list[str]:
    ttft = ttft_ns(one)
    first = None if ttft is None else one.sent_ns + ttft
    times = (one.scheduled_ns, one.sent_ns, first, one.ended_ns)
    return [str(one.number), *("–" if at is None else f"{(at - start) / 1e9:.4f}" for at in times), one.outcome]


def _told(one: Record) -> str:
    ttft, e2e = ttft_ns(one), e2e_ns(one)
    parts = [f"request {one.number}: {one.outcome}"]
    if ttft is not None:
        parts.append(f"first token after {number(ttft / 1e6)} ms")
    if e2e is not None:
        parts.append(f"ended after {number(e2e / 1e6)} ms")
    return ", ".join(parts)


def _ttft(one: Record) -> int | None:
    return ttft_ns(one, "sent" if one.scheduled_ns is None else "scheduled")


def _began(one: Record) -> int:
    began = began_ns(one, "scheduled")
    return one.sent_ns if began is None else min(began, one.sent_ns)


def _good(one: Record) -> bool:
    return one.outcome is Outcome.OK
