"""`tallystick probe show`: the figures of a run, with what stands behind them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.options import Form, formatted, setting_option
from tallystick.cli.output import Field, emit, print_table, text
from tallystick.cli.probe.finding import found_runs
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun

_IN_TABLE = ("_mean", "_p99", "_p90")
"""Figures that only JSON and CSV have."""


@click.command()
@click.argument("run")
@click.option("--view", type=click.Choice(["vllm", "guidellm", "aiperf"]), help="Under another tool's names and definitions.")
@click.option("--definitions", is_flag=True, help="What each figure means, in a sentence.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file, too.")
@formatted
@setting_option("data")
def show(*, run: str, view: str | None, definitions: bool, html: Path | None, form: Form, data: Path | None) -> None:
    """The figures of each stage of RUN, with n and a 95 % interval.

    RUN is an id or its beginning, `last`, a folder, PROBE/ENTRY, or a probe's name, and then of all its engines. A percentile that so many requests
    don't carry isn't shown, but how many it would take.

    \b
    tallystick probe show last
    tallystick probe show llamacpp/Q4_0 --definitions
    tallystick probe show last --view vllm --json
    """
    from tallystick.probes.report.facts import when

    found = found_runs(Settings.load(data=data).data, [run])
    if definitions:
        _define(form)
    rows = [row for one in found for row in (_figures(one) if view is None else _viewed(one, view))]
    if form != "table":
        emit(form, rows, _FIELDS)
    for one in found if form == "table" else ():
        info = one.info
        click.echo(f"{info.id}: {info.entry} of {info.probe}, {info.state}, {when(info.started_ns)}")
        if info.failure:
            click.echo(info.failure)
        of_run = [row for row in rows if row["run"] == info.id]
        if view is None:
            print_table([row for row in of_run if not row["figure"].endswith(_IN_TABLE) and row["n"]], _FIELDS)
        else:
            print_table(of_run, _VIEW_FIELDS)
        for stage in one.summaries:
            for apart in stage.differences:
                bounds = f"{_number(apart.value)} ms ({_number(apart.low)} to {_number(apart.high)})"
                click.echo(
                    f"{stage.load.name}: {apart.name}, medians of TTFT: {bounds}{'' if apart.shown else ', no difference is shown'}"
                )
            for told in (*stage.reasons, *stage.notes):
                click.echo(f"{stage.load.name}: {told}", err=True)
    if view is not None:
        _tell_view(view)
    if html is not None:
        from tallystick.probes.report.html import write_report

        write_report(html, found, now_ns=time.time_ns())


def _number(value: float | None) -> str:
    from tallystick.probes.report.ticks import number

    return "–" if value is None else number(value)


_FIELDS = [
    Field("load", "load", text),
    Field("figure", "figure", text),
    Field("value", "value", _number, right=True),
    Field("low", "low", _number, right=True),
    Field("high", "high", _number, right=True),
    Field("unit", "unit", lambda unit: unit),
    Field("n", "n", lambda n: f"{n:,}", right=True),
    Field("needs", "takes", lambda needs: "" if needs is None else f"{needs:,}", right=True),
]
_VIEW_FIELDS = [
    Field("load", "load", text),
    Field("figure", "figure", text),
    Field("value", "value", _number, right=True),
]


def _figures(run: "LoadedRun") -> list[dict[str, Any]]:
    return [
        {
            "run": run.info.id,
            "stage": stage.number,
            "load": stage.load.name,
            "figure": figure.name,
            "unit": figure.unit,
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
            "n": figure.n,
            "needs": figure.needs if figure.value is None else None,
            "method": figure.method,
            "valid": stage.valid,
        }
        for stage in run.summaries
        for figure in (*stage.figures.values(), *(group.ttft for group in stage.groups))
    ]


def _viewed(run: "LoadedRun", name: str) -> list[dict[str, Any]]:
    from tallystick.probes.views import view

    return [
        {"run": run.info.id, "stage": stage.number, "load": stage.load.name, "view": name, "figure": figure, "value": value}
        for stage in run.stages
        for figure, value in view(name, stage.records, run.target).items()
    ]


def _tell_view(name: str) -> None:
    from tallystick.probes.views import VIEWS

    click.echo(f"as {VIEWS[name].tool} counts, which is otherwise than here:", err=True)
    for said in VIEWS[name].differs:
        click.echo(f"  {said}", err=True)


def _define(form: Form) -> None:
    from tallystick.probes.figures.definitions import DEFINITIONS

    for name, said in DEFINITIONS.items():
        click.echo(f"{name}: {said}", err=form != "table")
