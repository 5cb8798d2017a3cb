"""Two runs held against each other, at equal loads: the differences of their figures, with intervals, or why there can be none.

The interval of a latency's difference says how requests of these stages vary, of a rate's how stretches of them do; where each side has three
stages or more of one load, it says how stages vary instead, which is what another run would see. Of all differences of a comparison, `shown` are
those that keep the chance of any false one at 5 % (Holm).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tallystick.probes.figures.differences import Difference, allowed_for, difference
from tallystick.probes.figures.percentiles import Figure, mean
from tallystick.probes.figures.summary import StageSummary

OPEN: Final = (
    "ttft_scheduled_p50",
    "ttft_scheduled_p95",
    "tpot_p50",
    "e2e_scheduled_p50",
    "good_share",
    "output_tokens_per_s",
)
CLOSED: Final = ("ttft_p50", "ttft_p95", "tpot_p50", "e2e_p50", "good_share", "output_tokens_per_s", "requests_per_s")
"""Figures that are compared. In an open loop times run from when a request was due: from sending they would hide what it waited."""

REPEATS: Final = 3
"""Stages of one load, at least, from which their own variation is known."""


@dataclass(frozen=True, slots=True)
class Side:
    """One run. workload, target: of its configuration, as JSON; what is asked, and what counts as good."""

    name: str
    workload: Mapping[str, Any]
    target: Mapping[str, Any] | None
    stages: Sequence[StageSummary]


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides at one load. cannot: why they aren't compared there, '' where they are."""

    load: str
    differences: tuple[Difference, ...]
    cannot: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of `now` against `base`. cannot: why they aren't compared at all, '' where they are."""

    base: str
    now: str
    pairs: tuple[Pair, ...]
    cannot: str = ""


def larger_is_better(name: str) -> bool:
    """Of a figure: rates and the share of good ones; of times, less is."""
    return name.endswith(("_per_s", "_share"))


def compared_figures(stage: StageSummary) -> tuple[str, ...]:
    """Names of those by which a stage can be held against another of its load: no latencies where it is censored."""
    names = CLOSED if stage.load.concurrency is not None else OPEN
    return tuple(name for name in names if larger_is_better(name)) if stage.censored else names


def compare(base: Side, now: Side) -> Comparison:
    """Pure. Stages are paired by their load's name; invalid ones are left out, and said to be."""
    if base.workload != now.workload:
        differing = sorted(name for name in {*base.workload, *now.workload} if base.workload.get(name) != now.workload.get(name))
        return Comparison(base.name, now.name, (), f"they were asked for different things (workload: {', '.join(differing)})")
    loads = [
        load
        for load in dict.fromkeys(stage.load.name for stage in base.stages)
        if any(one.load.name == load for one in now.stages)
    ]
    if not loads:
        measured = "; ".join(f"{side.name} at {_loads(side.stages)}" for side in (base, now))
        return Comparison(base.name, now.name, (), f"they were measured at no equal load: {measured}")
    pairs = [_pair(load, base, now) for load in loads]
    judged = iter(allowed_for([one for pair in pairs for one in pair.differences]))
    return Comparison(
        base.name, now.name, tuple(replace(pair, differences=tuple(next(judged) for _ in pair.differences)) for pair in pairs)
    )


def _pair(load: str, base: Side, now: Side) -> Pair:
    sides = [[stage for stage in side.stages if stage.load.name == load] for side in (base, now)]
    for side, stages in zip((base, now), sides, strict=True):
        if not any(stage.valid for stage in stages):
            return Pair(load, (), f"{side.name} isn't valid there: {stages[-1].reasons[0]}")
    before, after = ([stage for stage in stages if stage.valid] for stages in sides)
    repeated = min(len(before), len(after)) >= REPEATS
    last = before[-1], after[-1]
    names = [name for name in compared_figures(last[0]) if name in compared_figures(last[1])]
    if base.target != now.target:
        names.remove("good_share")
    found = [difference(_figure(before, name, repeated), _figure(after, name, repeated)) for name in names]
    differences = tuple(one for one in found if one is not None)
    if not any(one.unit == "ms" for one in differences) and not any(one.censored for one in last):
        few = min(one.requests for one in last)
        return Pair(load, (), f"too few requests ({few:,}) for an interval of any time")
    return Pair(load, differences)


def _figure(stages: Sequence[StageSummary], name: str, repeated: bool) -> Figure:
    missing = Figure(name, "", None, None, None, 0, "")
    if not repeated:
        return stages[-1].figures.get(name, missing)
    figures = [figure for stage in stages if (figure := stage.figures.get(name)) is not None]
    values = [figure.value for figure in figures if figure.value is not None]
    return mean(name, figures[0].unit, values) if len(values) >= REPEATS else missing


def _loads(stages: Sequence[StageSummary]) -> str:
    return ", ".join(dict.fromkeys(stage.load.name for stage in stages)) or "none"
