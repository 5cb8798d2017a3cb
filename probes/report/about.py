"""What was measured: the run, its engine and settings, what differs between runs, and what isn't to be trusted."""

from collections.abc import Sequence

from tallystick.probes.loading import LoadedRun
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.facts import differing, model, quantisation, shared, when
from tallystick.probes.runs import State


def measured(runs: Sequence[LoadedRun]) -> list[Block]:
    """A row a run; what differs between them; what all have alike."""
    infos = [run.info for run in runs]
    header = ("run", "engine", "model", "variant", "state", "began", "id")
    rows = [
        [
            info.entry,
            f"{info.engine.kind} {info.engine.version}".strip() if info.engine else "never reached",
            model(info) or "–",
            quantisation(info) or "–",
            info.state,
            when(info.started_ns),
            info.id,
        ]
        for info in infos
    ]
    blocks = [Block(table=Table("runs", header, rows, wide=True))]
    if unlike := differing(infos):
        caption = "what differs between the runs; what isn't here is alike, or isn't known"
        table = Table(
            caption, ("fact", *(info.entry for info in infos)), [[name, *values] for name, values in unlike.items()], wide=True
        )
        blocks.append(Block("Differences in what was measured", table=table))
    alike = shared(infos)
    title = "Configuration, engine and client" if len(runs) == 1 else "Alike in all of them"
    blocks.append(
        Block(title, table=Table("facts", ("fact", "value"), [[name, value] for name, value in alike.items()], wide=True))
    )
    return blocks


def doubts(runs: Sequence[LoadedRun]) -> list[Block]:
    """Runs and stages that are invalid or not whole, and why."""
    rows = []
    for run in runs:
        if run.info.state is not State.DONE:
            rows.append([run.info.entry, "whole run", run.info.state, run.info.failure or "its folder doesn't say why"])
        rows += [[run.info.entry, "files", "damaged", problem] for problem in run.problems]
        rows += [[run.info.entry, stage.load.name, "ended early", stage.ended] for stage in run.stages if stage.ended != "done"]
    return (
        [Block(table=Table("what can't be trusted, and why", ("run", "what", "state", "why"), rows, wide=True))] if rows else []
    )
