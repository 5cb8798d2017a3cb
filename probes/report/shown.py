"""A run as a report shows it."""

from collections.abc import Sequence
from typing import NamedTuple

from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.loading import LoadedRun


class Shown(NamedTuple):
    """name: the entry's, with more of it where two runs have the same. colour: of plots, 1 to 5."""

    name: str
    colour: int
    run: LoadedRun

    @property
    def summaries(self) -> Sequence[StageSummary]:
        """Of its stages, in the order of load."""
        return sorted(self.run.summaries, key=lambda one: (one.load.rate or 0, one.load.concurrency or 0, one.number))


def shown(runs: Sequence[LoadedRun]) -> list[Shown]:
    """In their order."""
    entries = [run.info.entry for run in runs]
    return [
        Shown(run.info.entry if entries.count(run.info.entry) == 1 else run.info.id, 1 + index % 5, run)
        for index, run in enumerate(runs)
    ]
