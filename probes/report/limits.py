"""Where an engine stops: the knee, and the highest rate within the target, of the stages that were measured."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tallystick.probes.load.sweep import HighestGood, highest_good, knee, reached
from tallystick.probes.loading import LoadedRun
from tallystick.probes.records import Stage
from tallystick.probes.report.plots import Rule
from tallystick.probes.report.shown import Shown


class Limit(NamedTuple):
    """knee: requests a second. good: None without a target or open loop. stage: that single requests are shown of, the highest good or busiest."""

    knee: float | None
    good: HighestGood | None
    stage: Stage | None

    def sentence(self, name: str) -> str | None:
        """What is good for the head of a report; None where no limit was looked for."""
        if self.good is None:
            return None
        if self.good.rate is None:
            return f"{name} meets the target at no rate that was measured. {self.good.note}".rstrip()
        knee = f"; its knee is at {self.knee:g}" if self.knee is not None else ""
        return f"{name} carries {self.good.rate:g} requests a second within the target{knee}. {self.good.note}".rstrip()


def limit_of(run: LoadedRun) -> Limit:
    """Of all stages of a run."""
    done = [reached(summary) for summary in run.summaries]
    opened = any(one.load.rate is not None for one in done)
    good = highest_good(done, run.target) if run.target is not None and opened else None
    best = good.reached if good is not None else None
    answered = [stage for stage in run.stages if stage.records]
    chosen = next((stage for stage, one in zip(run.stages, done, strict=True) if one is best), None)
    if chosen is None and answered:
        chosen = max(answered, key=lambda stage: (stage.load.rate or 0, stage.load.concurrency or 0))
    return Limit(knee(done) if opened else None, good, chosen)


def rules(runs: Sequence[Shown], limits: Mapping[str, Limit]) -> list[Rule]:
    """Marks for plots over the rate."""
    marks = []
    for run in runs:
        limit = limits[run.name]
        if limit.good is not None and limit.good.rate is not None:
            marks.append(Rule("x", limit.good.rate, f"{run.name} within target", run.colour))
        if limit.knee is not None:
            marks.append(Rule("x", limit.knee, f"{run.name} knee", run.colour))
    return marks
