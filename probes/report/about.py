"""What was measured: the run, its engine and settings, what differs between runs, and what isn't to be trusted."""

from collections.abc import Sequence

from tallystick.probes.loading import LoadedRun
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.facts import differing, model, quantisation, shared, when
from tallystick.probes.report.shown import Shown
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
        beside = Table(
            caption, ("fact", *(info.entry for info in infos)), [[name, *values] for name, values in unlike.items()], wide=True
        )
        blocks.append(Block("Differences in what was measured", table=beside))
    alike = shared(infos)
    title = "Configuration, engine and client" if len(runs) == 1 else "Alike in all of them"
    table = Table(title, ("fact", "value"), [[name, value] for name, value in alike.items()], wide=True)
    blocks.append(Block(table=table, folded=len(runs) > 1))
    return blocks


def doubts(runs: Sequence[Shown]) -> list[Block]:
    """Runs and stages that are invalid or not whole, and why; and what is to be known beside figures that are."""
    rows, notes = [], []
    for run in runs:
        info = run.run.info
        if info.state is not State.DONE:
            rows.append([run.name, "whole run", info.state, info.failure or "its folder doesn't say why"])
        rows += [[run.name, "files", "damaged", problem] for problem in run.run.problems]
        for one in run.summaries:
            rows += [[run.name, one.load.name, "invalid", reason] for reason in one.reasons]
            notes += [[run.name, one.load.name, note] for note in one.notes]
    blocks = []
    if rows:
        blocks.append(Block(table=Table("what can't be trusted, and why", ("run", "what", "state", "why"), rows, wide=True)))
    if notes:
        blocks.append(Block(table=Table("to be known", ("run", "load", "note"), notes, wide=True)))
    return blocks
