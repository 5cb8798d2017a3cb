"""`tallystick probe push`: runs that were measured here, kept by a server."""

from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.access import sending_url
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import Field, count, print_json, print_table, text
from tallystick.cli.probe.finding import found_runs
from tallystick.client import Client
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@json_option
@connected
def push(*, runs: tuple[str, ...], as_json: bool, settings: Settings) -> None:
    """Send runs to a server, which keeps their figures and requests in the ledger's database. Needs an operator's key, where keys are needed.

    RUN is an id or its beginning, `last`, a folder, or a probe's name (the newest run of each of its engines). What stands there already isn't
    sent twice; a run of which more is known now replaces what was known of it.

    \b
    tallystick probe push last
    tallystick probe push llama --url https://tallystick.example.com
    """
    found = found_runs(settings.data, runs)
    with Client(sending_url(settings), settings.key, timeout_s=300) as client:
        rows = [push_run(client, run) for run in found]
    if as_json:
        print_json(rows)
    else:
        print_table(
            rows, [Field("run", "run", text), Field("requests", "requests", count, right=True), Field("became", "", text)]
        )


def push_run(client: Client, run: "LoadedRun") -> dict[str, Any]:
    """Send it whole: `run`, `requests`, and what it `became` there. Raises Unreachable, Refused."""
    from tallystick.probing.push import parts

    requests, answer = 0, dict[str, Any]()
    for part in parts(run):
        answer = client.push_probe(part)
        requests += answer["requests"]
        if not answer["kept"]:
            break
    return {"run": run.info.id, "requests": requests, "became": "kept" if answer["kept"] else "stood there already"}
