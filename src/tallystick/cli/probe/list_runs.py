"""`tallystick probe list`: what was measured here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.options import Form, formatted, setting_option
from tallystick.cli.output import Field, count, emit, money, text
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun
    from tallystick.probes.report.money import Money

_ROWS = 20


@click.command("list")
@click.option("--probe", help="Runs of this probe only.")
@click.option("--limit", type=click.IntRange(min=0), default=_ROWS, show_default=True, help="Most runs, the latest; 0 is all.")
@formatted
@setting_option("data")
def list_runs(*, probe: str | None, limit: int, form: Form, data: Path | None) -> None:
    """Runs of probes in the data directory, the latest first.

    Carried is the highest rate whose stage met the latency target; TTFT is of that stage, else of the one with the most load. The price is of a
    million tokens at that rate, of an engine that is never idle.

    \b
    tallystick probe list
    tallystick probe list --probe llamacpp --limit 0 --csv
    """
    from tallystick.probes.loading import FOLDER, load_run, runs_in
    from tallystick.probes.report.money import priced

    folder = Settings.load(data=data).data
    unreadable: list[str] = []
    known = [info for info in runs_in(folder, unreadable) if probe in (None, info.probe)][::-1]
    shown = known[: limit or None]
    # One at a time: a run's requests are large, and aren't kept once its row is made.
    runs = (load_run(folder / FOLDER / info.id) for info in shown)
    emit(form, [row(run, priced([run])) for run in runs], FIELDS)
    for problem in unreadable:
        click.echo(f"left out: {problem}", err=True)
    if not known:
        click.echo(f"no runs in {folder / FOLDER}; `tallystick probe run CONFIG` makes one", err=True)
    elif left := len(known) - len(shown):
        click.echo(f"older runs: {left:,}; --limit 0 shows them", err=True)


def _milliseconds(value: float | None) -> str:
    from tallystick.probes.report.ticks import number

    return "–" if value is None else number(value)


FIELDS = [
    Field("id", "run", text),
    Field("probe", "probe", text),
    Field("engine", "engine", text),
    Field("model", "model", text),
    Field("variant", "variant", text),
    Field("state", "state", text),
    Field("began", "began", text),
    Field("stages", "stages", count, right=True),
    Field("carried_per_s", "carried/s", _milliseconds, right=True),
    Field("ttft_p50_ms", "TTFT p50 ms", _milliseconds, right=True),
    Field("ttft_p95_ms", "p95 ms", _milliseconds, right=True),
    Field("usd_per_million", "USD/M", lambda value: "–" if value is None else money(value), right=True),
]


def row(run: "LoadedRun", money: "Money") -> dict[str, Any]:
    """A run as it is listed."""
    from tallystick.probes.report.facts import model, quantisation, when
    from tallystick.probes.report.limits import limit_of
    from tallystick.probes.report.wording import first_token

    info, limit = run.info, limit_of(run)
    number = limit.stage.number if limit.stage else None
    summary = next((one for one in run.summaries if one.number == number), None)
    price = money.prices.get(info.id)
    return {
        "id": info.id,
        "probe": info.probe,
        "entry": info.entry,
        "engine": f"{info.engine.kind} {info.engine.version}".strip() if info.engine else None,
        "model": model(info) or None,
        "variant": quantisation(info) or None,
        "state": str(info.state),
        "began": when(info.started_ns),
        "stages": len(run.stages),
        "carried_per_s": limit.good.rate if limit.good else None,
        "ttft_p50_ms": summary and summary.value(f"{first_token(summary)}_p50"),
        "ttft_p95_ms": summary and summary.value(f"{first_token(summary)}_p95"),
        "usd_per_million": price and price.all_tokens,
    }
