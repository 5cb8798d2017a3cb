"""`tallystick probe run`: engines measured as a file says."""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.access import sending_url
from tallystick.cli.failure import Failure
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import print_json, print_table
from tallystick.cli.probe.calls import real_calls
from tallystick.client import Client
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.config import BreakEven, EngineEntry, ProbeConfig, Workload
    from tallystick.probes.figures.summary import StageSummary
    from tallystick.probes.load.traffic_mix import Mix
    from tallystick.probes.loading import LoadedRun
    from tallystick.probes.records import LoadPoint, Record
    from tallystick.probes.runs import RunInfo

_TOLD_EVERY_S: Final = 0.5


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="ENTRY", help="Measure these of the file's engines alone; repeatable.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Where the report goes; else beside the runs.")
@click.option("--push", "pushed", is_flag=True, help="Send the runs to the server, too.")
@json_option
@connected
def run(*, config: Path, only: tuple[str, ...], html: Path | None, pushed: bool, as_json: bool, settings: Settings) -> None:
    """Measure the engines of CONFIG, one after another, and write a report. docs/probes.md has every field of the file.

    Engines are found at their URLs, or started and stopped again. Runs are kept in the data directory's folder `probes`, written as they go:
    Ctrl-C ends them, and what was measured is reported. Exit code 1: a run failed, or none of its figures can be trusted.

    \b
    tallystick probe run examples/llamacpp.yaml
    tallystick probe run engines.yaml --only q8_0 --html q8.html
    tallystick probe run nightly.yaml --push --json
    """
    from tallystick.probes.config import ConfigError, load_config

    try:
        found = load_config(config)
    except ConfigError as error:
        raise Failure(f"{config} can't be used", str(error)) from None
    chosen = _chosen(found, only)
    # Asked for before anything is measured: what isn't there should be said at once.
    calls = _calls(found.workload, config.parent, settings, as_they_came=found.load.kind == "trace")
    compared = _calls(found.breakeven, config.parent, settings) if found.breakeven else None
    runs = _measured(chosen, calls, settings.data)
    report, rows = _reported(found, runs, compared, settings, html)
    if pushed:
        _push(runs, settings)
    if as_json:
        print_json(rows)
    elif rows:
        from tallystick.cli.probe.list_runs import FIELDS

        print_table(rows, FIELDS)
    if report is not None:
        click.echo(f"report: {report}", err=True)
    _end(runs)


def _chosen(config: "ProbeConfig", only: Sequence[str]) -> "ProbeConfig":
    names = [entry.name for entry in config.engines]
    if unknown := [name for name in only if name not in names]:
        raise click.BadParameter(f"{', '.join(unknown)} isn't in the file: it has {', '.join(names)}", param_hint="--only")
    return config.model_copy(update={"engines": tuple(one for one in config.engines if not only or one.name in only)})


def _calls(source: "Workload | BreakEven", base: Path, settings: Settings, *, as_they_came: bool = False) -> "Mix | None":
    """Of the trace or feature that is named; None where none is. A file's path is from the configuration's folder."""
    from tallystick.probing.mix import SHIPPED

    trace = source.trace if source.trace is None or str(source.trace) in SHIPPED else base / source.trace
    return real_calls(trace, source.ledger, settings, as_they_came=as_they_came)


def _measured(config: "ProbeConfig", calls: "Mix | None", data: Path) -> "list[LoadedRun]":
    from tallystick.probes.loading import load_run
    from tallystick.probing.run import Probe, run_probe

    probe = Probe(config, data.absolute(), calls.calls if calls else None)

    async def measure() -> "list[RunInfo]":
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        return await run_probe(probe, _Told(), stop)

    infos = asyncio.run(measure())
    # What this process knows of them stands also where the disk took no more.
    return [replace(load_run(probe.folder(info.id)), info=info) for info in infos]


def _reported(
    config: "ProbeConfig", runs: "Sequence[LoadedRun]", compared: "Mix | None", settings: Settings, html: Path | None
) -> tuple[Path | None, list[dict[str, Any]]]:
    """Where the report is, None where there is nothing to report or no place for it, and what is printed of each run."""
    from tallystick.cli.probe.list_runs import row
    from tallystick.probes.report.html import write_report
    from tallystick.probing.paid import paid

    if not runs:
        return None, []
    money = paid(runs, config.breakeven, compared, settings.config, datetime.now(UTC))
    rows = [row(one, money) for one in runs]
    for name, found in money.breakevens.items():
        entry = next(one.info.entry for one in runs if one.info.id == name)
        for against in found.against:
            click.echo(f"{entry}: {against.verdict}", err=True)
    path = html or runs[0].folder.parent / f"{config.name.replace('/', '-')}-{runs[0].info.started:%Y%m%dT%H%M%S}.html"
    try:
        write_report(path, runs, now_ns=time.time_ns(), money=money)
    except OSError as error:
        click.secho(f"the report can't be written to {path}: {error.strerror}; the runs are kept", fg="red", err=True)
        return None, rows
    return path, rows


def _push(runs: "Sequence[LoadedRun]", settings: Settings) -> None:
    from tallystick.cli.probe.push import push_run

    with Client(sending_url(settings), settings.key, timeout_s=300) as client:
        for one in runs:
            push_run(client, one)


def _end(runs: "Sequence[LoadedRun]") -> None:
    from tallystick.probes.runs import State

    for one in runs:
        if one.info.state is not State.DONE:
            click.secho(f"{one.info.entry} is {one.info.state}: {one.info.failure}", fg="red", err=True)
    if not runs or any(one.info.state is not State.DONE for one in runs):
        raise click.exceptions.Exit(1)


class _Told:
    """A line a stage on stderr; on a terminal, how far it is, twice a second, which costs the measurement some microseconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._requests = self._answered = 0
        self._next = 0.0

    def waits(self, entry: "EngineEntry") -> None:
        click.echo(f"{entry.name}: waits until the other probe on its machine has ended", err=True)

    def began(self, info: "RunInfo") -> None:
        click.echo(f"{info.entry}: run {info.id}", err=True)

    def found(self, info: "RunInfo") -> None:
        assert info.engine is not None
        engine = f"{info.engine.kind} {info.engine.version}".rstrip()
        click.echo(f"{info.entry}: {engine} serves {info.engine.model}", err=True)

    def stage(self, info: "RunInfo", number: int, load: "LoadPoint", requests: int) -> None:
        self._requests, self._answered, self._next = requests, 0, 0.0

    def answered(self, info: "RunInfo", record: "Record") -> None:
        self._answered += 1
        if self._terminal and time.monotonic() >= self._next:
            self._next = time.monotonic() + _TOLD_EVERY_S
            click.echo(f"\r\x1b[K{info.entry}: {self._answered:,} of {self._requests:,} requests", nl=False, err=True)

    def staged(self, info: "RunInfo", summary: "StageSummary") -> None:
        from tallystick.probes.report.wording import first_token, written

        figures = summary.figures
        first = written(figures.get(f"{first_token(summary)}_p95"))
        said = f"TTFT p95 {first} ms, {written(figures.get('output_tokens_per_s'))} tokens/s"
        good = summary.value("good_share")
        kept = f", {good:.0%} within the target" if good is not None else ""
        doubt = "" if summary.valid else f"; can't be trusted: {summary.reasons[0]}"
        start = "\r\x1b[K" if self._terminal else ""
        ended = "" if summary.ended == "done" else f" (ended: {summary.ended})"
        click.echo(f"{start}{info.entry}: {summary.load.name}: {said}{kept}{ended}{doubt}", err=True)

    def ended(self, info: "RunInfo") -> None:
        """The end says it of all."""
