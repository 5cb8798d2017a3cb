"""The loads of a run's stages, one after another; a sweep's depend on what was reached before."""

from collections.abc import Iterator

from tallystick.probes.config import Load, Target
from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.load.sweep import Reached, next_point, reached
from tallystick.probes.records import LoadPoint


class LoadPoints:
    """`next` until it says None; after each stage, `reached`."""

    def __init__(self, load: Load, target: Target | None) -> None:
        self._load, self._target = load, target
        self._given = _given(load)
        self._done: list[Reached] = []
        self.number = 0
        """Of the stage whose load `next` said last, from 1 on."""

    def next(self) -> LoadPoint | None:
        point = next(self._given, None) if self._load.kind != "sweep" else self._swept()
        self.number += point is not None
        return point

    def reached(self, summary: StageSummary) -> None:
        self._done.append(reached(summary))

    def _swept(self) -> LoadPoint | None:
        assert self._target is not None
        return next_point(self._done, self._load, self._target)


def _given(load: Load) -> Iterator[LoadPoint]:
    match load.kind:
        case "closed":
            yield from (LoadPoint("closed", concurrency=number) for number in load.concurrencies)
        case "trace" if not load.rates:
            yield LoadPoint("trace")
        case kind:
            yield from (LoadPoint(kind, rate=rate) for rate in load.rates)
