"""`tallystick probe compare`: runs beside each other, and whether one is worse than those before it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, formatted, setting_option
from tallystick.cli.output import Field, emit, print_table, text
from tallystick.cli.probe.finding import found_runs
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun
    from tallystick.probes.report.shown import Shown

_ALLOWED = 10.0
"""Percent by which a figure may be worse before it is a regression, where nothing else is said."""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--base", metavar="RUN", help="The run that the others are held against; the first unless given.")
@click.option("--with-last", is_flag=True, help="Each run against those of the same probe and engine before it.")
@click.option(
    "--fail-on-regression",
    "allowed",
    type=click.FloatRange(min=0),
    metavar="PERCENT",
    help="As --with-last; exit code 1 where a figure is worse by more than this, and not by chance.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file, too.")
@formatted
@setting_option("data")
def compare(
    *,
    runs: tuple[str, ...],
    base: str | None,
    with_last: bool,
    allowed: float | None,
    html: Path | None,
    form: Form,
    data: Path | None,
) -> None:
    """Hold runs against the first of them: what differs in what was measured, figures side by side, differences and a verdict.

    RUN is an id or its beginning, `last`, a folder, PROBE/ENTRY, or a probe's name: the newest run of each of its engines. Figures are compared at
    equal loads, each with a 95 % interval; a difference is shown where it isn't chance, with all that are compared allowed for.

    \b
    tallystick probe compare llamacpp --html report.html
    tallystick probe compare 20261121T16 20261122T09 --json
    tallystick probe compare llamacpp/Q4_0 --fail-on-regression 10
    """
    from tallystick.probes.report import compared
    from tallystick.probes.report.limits import limit_of
    from tallystick.probes.report.shown import shown

    folder = Settings.load(data=data).data
    found = found_runs(folder, [*([base] if base is not None else ()), *runs])
    back = with_last or allowed is not None
    if len(found) < 2 and not back:
        raise Failure(f"{found[0].info.id} alone is nothing to compare", "name another run, or use --with-last")
    beside = shown(found)
    comparisons = compared.comparisons(beside)
    rows = compared.rows_of(beside, comparisons)
    if form == "table":
        _side_by_side(beside)
        for comparison in comparisons:
            click.echo("\n".join(words for _, words in compared.headlines(comparison)))
        for one in beside:
            if (carried := limit_of(one.run).sentence(one.name)) is not None:
                click.echo(carried)
    regressed = _held(found, folder, _ALLOWED if allowed is None else allowed, form, rows) if back else False
    if form != "table":
        emit(form, rows, [Field(name, name, text) for name in compared.COLUMNS])
    if html is not None:
        from tallystick.probes.report.html import write_report

        write_report(html, found, now_ns=time.time_ns())
        click.echo(f"report: {html}", err=True)
    if regressed and allowed is not None:
        raise click.exceptions.Exit(1)


def _side_by_side(runs: "Sequence[Shown]") -> None:
    """What differs between the runs, and their figures at each load that more than one was measured at."""
    from tallystick.probes.figures.comparing import CLOSED, OPEN
    from tallystick.probes.report.facts import differing
    from tallystick.probes.report.wording import titled, written

    columns = [Field(run.name, run.name, lambda value: value, right=True) for run in runs]
    unlike = differing([run.run.info for run in runs])
    facts = [{"fact": name, **dict(zip([run.name for run in runs], values, strict=True))} for name, values in unlike.items()]
    if facts:
        print_table(facts, [Field("fact", "differs", text), *columns])
    stages = {run.name: {stage.load: stage for stage in run.summaries} for run in runs}
    loads = dict.fromkeys(load for of_run in stages.values() for load in of_run)
    rows: list[dict[str, Any]] = []
    for load in loads:
        there = {name: of_run[load] for name, of_run in stages.items() if load in of_run}
        for figure in OPEN if load.concurrency is None else CLOSED:
            cells = {name: written(stage.figures.get(figure)) + ("" if stage.valid else " !") for name, stage in there.items()}
            rows.append({"load": load.name, "figure": titled(figure), **dict.fromkeys(stages, ""), **cells})
    if rows:
        print_table(rows, [Field("load", "load", text), Field("figure", "figure", text), *columns])
    if any(not stage.valid for of_run in stages.values() for stage in of_run.values()):
        click.echo("! can't be trusted: `tallystick probe show` says why", err=True)


def _held(runs: "Sequence[LoadedRun]", folder: Path, allowed: float, form: Form, rows: list[dict[str, Any]]) -> bool:
    """Each run against those before it; adds to `rows`. Whether anything regressed."""
    from tallystick.probes.loading import runs_before
    from tallystick.probes.report.compared import held_against, rows_held

    regressed = False
    for run in runs:
        before = runs_before(folder, run.info)
        held = held_against(run, before, allowed)
        rows += rows_held(run.info.id, held)
        regressed |= any(one.regression.regressed for one in held)
        if form == "table":
            click.echo(
                f"{run.info.id}, held against {', '.join(one.info.id for one in before) or 'nothing: no valid run before it'}"
            )
            for one in held:
                mark = "worse" if one.regression.regressed else "     "
                click.echo(f"  {mark} {one.load}: {one.regression.words}")
            if before and not held:
                click.echo("  no stage of it is at a load of theirs")
    return regressed
