"""Of single requests: how their latencies are spread, when each was sent and answered, and which failed."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tallystick.probes.measures import began_ns, e2e_ns, measured, ttft_ns
from tallystick.probes.records import Outcome, Record, Stage
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.plots import Plot, Point, Series
from tallystick.probes.report.ticks import number

_MOST: Final = 160
"""Requests of a timeline, and points of a distribution: more can't be told apart."""


def distribution(runs: Sequence[tuple[str, int, Stage]]) -> Block | None:
    """TTFT of each run's stage as a cumulative distribution. runs: name, colour, stage. None where nothing was answered."""
    series, rows = [], []
    for name, colour, stage in runs:
        times = sorted(found / 1e6 for one in measured(stage.records) if _good(one) and (found := _ttft(one)) is not None)
        if not times:
            continue
        shares = [(index + 1) / len(times) for index in range(len(times))]
        chosen = sorted({round(index * (len(times) - 1) / min(_MOST, len(times))) for index in range(_MOST)} | {len(times) - 1})
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
        table=Table("requests that were answered, with the fastest and the slowest, ms", ("run", "load", "n", "least", "most"), rows),
    )  # fmt: skip


def timeline(name: str, stage: Stage, colour: int) -> Block | None:
    """When each request of a stage was due, sent, answered and ended."""
    records = sorted(measured(stage.records), key=lambda one: one.sent_ns if one.scheduled_ns is None else one.scheduled_ns)
    if not records:
        return None
    shown = records[:_MOST]
    start = min(_began(one) for one in shown)

    def seconds(at_ns: int) -> float:
        return (at_ns - start) / 1e9

    due: list[Point] = []
    sent: list[Point] = []
    first: list[Point] = []
    ended: list[Point] = []
    failed: list[Point] = []
    for index, one in enumerate(shown):
        label = _told(one)
        if one.scheduled_ns is not None:
            due.append(Point(seconds(one.scheduled_ns), index, label=label))
        sent.append(Point(seconds(one.sent_ns), index, label=label))
        if (ttft := ttft_ns(one)) is not None:
            first.append(Point(seconds(one.sent_ns + ttft), index, label=label))
        (ended if _good(one) else failed).append(Point(seconds(one.ended_ns), index, label=label))
    series = [
        Series("due", due, 0, "dots", faint=True),
        Series("sent", sent, colour, "dots", faint=True),
        Series("first token", first, 1 + colour % 5, "dots"),
        Series("ended", ended, 1 + (colour + 1) % 5, "dots"),
        Series("failed", failed, 5, "dots"),
    ]
    left = f"; the first {_MOST} of {len(records):,}" if len(records) > _MOST else ""
    return Block(
        f"{name}, {stage.load.name}: when each request was due, sent and answered{left}",
        plot=Plot(
            f"Timeline of requests of {name}", "A row a request, in the order in which they were due; the longer a row, the longer it took.",
            "seconds", "request", [one for one in series if one.points],
        ),
        table=Table(
            "seconds after the first was due",
            ("request", "due", "sent", "first token", "ended", "outcome"),
            [_row(one, start) for one in shown[:50]],
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
