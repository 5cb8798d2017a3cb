"""What engines said of themselves while they were measured, over the time of a run."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tallystick.probes.records import Sample, Stage
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.plots import Plot, Point, Rule, Series
from tallystick.probes.report.ticks import number

DEFINITIONS: Final[Mapping[str, str]] = {
    "KV cache": "share of the memory for keys and values that is taken, as the engine's /metrics said at that moment",
    "running": "requests that the engine was working on",
    "waiting": "requests that the engine had taken and not begun: where it rises, load is above capacity",
}
_MOST: Final = 300


class _Shown(NamedTuple):
    metric: str
    name: str
    factor: float


_USE: Final = (_Shown("kv_cache_usage", "KV cache", 100.0),)
_QUEUE: Final = (_Shown("requests_running", "running", 1.0), _Shown("requests_waiting", "waiting", 1.0))


def engine_figures(name: str, stages: Sequence[Stage], colour: int) -> list[Block]:
    """A block for what was told of: cache use, queue. None of them where the engine has no /metrics."""
    samples = sorted((sample for stage in stages for sample in stage.samples), key=lambda sample: sample.at_ns)
    rules = [Rule("x", stage.started_ns / 1e9, str(stage.number)) for stage in stages]
    blocks = []
    for shown, title, unit in ((_USE, "KV cache in use", "%"), (_QUEUE, "requests in the engine", "requests")):
        series = [
            Series(one.name, points, (colour + offset - 1) % 5 + 1, marks=False)
            for offset, one in enumerate(shown)
            if (points := _points(samples, one))
        ]
        if not series:
            continue
        blocks.append(
            Block(
                f"{name}: {title}",
                plot=Plot(
                    f"{title}, {name}", "A line a figure; dashed lines are the beginnings of stages.",
                    "seconds since the run began", unit, series, rules,
                ),
                table=Table(f"{title} by stage, mean and most", ("stage", "load", *(one.name for one in shown)), _rows(stages, shown)),
                definitions={one.name: DEFINITIONS[one.name] for one in shown},
            )
        )  # fmt: skip
    return blocks


def _points(samples: Sequence[Sample], shown: _Shown) -> list[Point]:
    found = [
        Point(sample.at_ns / 1e9, sample.values[shown.metric] * shown.factor)
        for sample in samples
        if shown.metric in sample.values
    ]
    stride = 1 + len(found) // _MOST
    return found[::stride]


def _rows(stages: Sequence[Stage], shown: Sequence[_Shown]) -> list[list[str]]:
    rows = []
    for stage in stages:
        row = [str(stage.number), stage.load.name]
        for one in shown:
            values = [sample.values[one.metric] * one.factor for sample in stage.samples if one.metric in sample.values]
            row.append(f"{number(sum(values) / len(values))}, {number(max(values))}" if values else "–")
        rows.append(row)
    return rows
