"""`tallystick demo`: from nothing to what real traffic cost, and a proof that the ledger is right."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any

import click

from tallystick.attribution.spend import coverage
from tallystick.cli.costs import by_dimensions, show
from tallystick.cli.failure import Failure
from tallystick.cli.output import money, percent
from tallystick.cli.replay import Source, Tally, deliver, opened
from tallystick.client import Client
from tallystick.testing.slack import SlackServer
from tallystick.traffic import shipped
from tallystick.traffic.calls import Call, moved_to_yesterday
from tallystick.traffic.send import batched
from tallystick.traffic.truth import Group, Total, disagreements, expected

_START_S = 60.0
_STOP_S = 30.0
_TABLES = ((["customer"], 5), (["feature", "agent", "team"], 10), (["provider", "model"], 10))
_SEED = 0


_PORTIONS = 12
_SLACK_S = 20.0
_CONFIG = """\
channels:
  team: {{type: slack, url: "{webhook}"}}
budgets:
  - {{name: demo, amount: 200, period: {{every: 7 days, start: {start}}}, notify: [team]}}
"""


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    url: str
    slack: SlackServer | None = None
    """Where the server's alerts go; None: it sends none."""


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="New directory for the ledger, kept afterwards.")
@click.option("--keep", is_flag=True, help="Leave the server running, and its directory in place.")
def demo(*, data: Path | None, keep: bool) -> None:
    """Send 40,216 calls of real traffic through a server of its own and print what they cost.

    The token counts are those of production services (Azure, Mooncake); customers, features and models are invented. All totals
    are then compared with a calculation that knows nothing of the server: the trace files and genai-prices.

    \b
    tallystick demo
    tallystick demo --data ./demo-ledger --keep
    """
    for package in ("chdb", "genai_prices", "httpx"):
        # Said here in a line, instead of from within the server's log.
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    if data is not None and data.exists() and any(data.iterdir()):
        raise Failure(f"{data} isn't empty", "the demo's calls would mix with yours: give it a directory of its own")
    place = data or Path(tempfile.mkdtemp(prefix="tallystick-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    try:
        with _server(place, keep=keep) as server:
            _run(server, begun)
            _next_steps(server, place, kept=keep, temporary=data is None)
    finally:
        if data is None and not keep:
            shutil.rmtree(place, ignore_errors=True)


def _run(server: _Server, begun: float) -> None:
    now_ns = time.time_ns()
    tally = Tally()
    sources = [Source(trace, moved_to_yesterday(trace, now_ns)) for trace in opened(shipped())]
    traffic = [call for source in sources for call in tally.read(source, _SEED)]
    since_ns, until_ns = min(call.started_ns for call in traffic), max(call.started_ns for call in traffic) + 1
    with Client(server.url) as client:
        click.echo(f"sending {len(traffic):,} calls of real traffic to {server.url}")
        said, took = 0, 0.0
        # In portions, as time went by: the budget is looked at after each.
        for portion in _portions(traffic) if server.slack else [traffic]:
            started = time.monotonic()
            deliver(client, batched(portion), len(portion))
            took += time.monotonic() - started
            said += len(client.evaluate_alerts()["said"]) if server.slack else 0
        click.echo(
            f"stored {len(traffic):,} calls with {tally.tokens:,} tokens in {took:.1f} s: {len(traffic) / took:,.0f} spans/s"
        )
        for dimensions, limit in _TABLES:
            show(by_dimensions(client, dimensions, since_ns, until_ns, limit), dimensions, "table")
        rows = by_dimensions(client, Group._fields, since_ns, until_ns)
    click.echo(f"first result after {time.monotonic() - begun:.1f} s; checking it against the trace files and genai-prices")
    _check(traffic, rows)
    if server.slack:
        _show_messages(server.slack, said)


def _portions(traffic: list[Call]) -> Iterator[list[Call]]:
    in_time = sorted(traffic, key=lambda call: call.started_ns)
    size = -(-len(in_time) // _PORTIONS)
    for first in range(0, len(in_time), size):
        yield in_time[first : first + size]


def _show_messages(slack: SlackServer, said: int) -> None:
    """The messages of the budget, the last one whole. Raises Failure where one is missing."""
    deadline = time.monotonic() + _SLACK_S
    while len(slack.messages) < said and time.monotonic() < deadline:
        time.sleep(0.05)
    if not said or len(slack.messages) != said:
        raise Failure(f"{said} messages were to be sent, {len(slack.messages)} arrived", "please report this")
    click.echo("\na budget of 200 USD was crossed at 50, 80 and 100 %, each said once to a Slack of the demo's own:")
    for message in slack.messages[:-1]:
        click.echo(f"  {message.title}")
    click.echo("\n" + indent(slack.messages[-1].show(), "  ") + "\n")


def _check(traffic: list[Call], rows: list[dict[str, Any]]) -> None:
    """Compare the ledger's rows with the truth, group by group, and say so. Raises Failure where they differ."""
    wanted = expected(traffic)
    found = {Group(*(row[name] for name in Group._fields)): _total(row) for row in rows}
    problems = disagreements(wanted, found)
    if problems:
        shown = "\n  ".join(problems[:10])
        raise Failure(f"the ledger disagrees with the trace files in {len(problems):,} figures:\n  {shown}", "please report this")
    cost = sum((total.cost_usd for total in wanted.values() if total.cost_usd is not None), Decimal(0))
    calls, tokens = coverage(rows[0], "all_")
    figures = f"{len(traffic):,} calls in {len(wanted):,} groups, {money(cost)} USD"
    click.secho(f"checked: {figures}, every token and every cent as in the trace files", fg="green")
    click.echo(f"{percent(tokens)} of tokens and {percent(calls)} of calls are priced; the rest ran on a model of one's own")


def _total(row: dict[str, Any]) -> Total:
    tokens = {name: row[name] or 0 for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")}
    return Total(calls=row["calls"], cost_usd=row["cost_usd"], **tokens)


def _next_steps(server: _Server, place: Path, *, kept: bool, temporary: bool) -> None:
    if kept:
        click.echo(f"\nThe server goes on at {server.url}; `kill {server.process.pid}` stops it. Try:")
        click.echo(f"  export TALLYSTICK_URL={server.url}")
        click.echo("  tallystick costs --by customer,feature")
    elif temporary:
        click.echo("\nTry it with a server of your own:")
        click.echo("  tallystick up &")
        click.echo("  tallystick replay && tallystick costs --by customer,feature")
    else:
        click.echo(f"\nThe ledger is in {place}. Try:")
        click.echo(f"  tallystick costs --by customer,feature --data {place}")
    click.echo('  tallystick sql "SELECT feature, quantile(0.95)(ttft_ms) FROM charges GROUP BY feature"')
    click.echo("  tallystick prices missing")


@contextmanager
def _server(data: Path, *, keep: bool) -> Iterator[_Server]:
    """`tallystick up` on a free port, stopped at the end unless it is to be kept and nothing failed."""
    with SlackServer() as slack:
        config = data / "demo.yaml"
        start = datetime.now(UTC).date() - timedelta(days=2)
        config.write_text(_CONFIG.format(webhook=slack.webhook_url, start=start), encoding="utf-8")
        # Prices or keys of this shell's would make the demo another one. Alerts are evaluated when the demo asks for it.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
        environ |= {"TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1", "TALLYSTICK_ALERTS_EVERY_S": "3600"}
        flags = ["--data", str(data), "--port", str(_free_port()), "--grpc-port", "0", "--config", str(config)]
        # The log stays out of the data directory, the server's own.
        with tempfile.NamedTemporaryFile(prefix="tallystick-demo-", suffix=".log", delete=False) as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the server in order.
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "tallystick.cli", "up", *flags],
                env=environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield _Server(process, _ready(process, Path(log.name)), slack)
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                _stop(process)
                Path(log.name).unlink(missing_ok=True)


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that the server announces once it accepts spans. Raises Failure with the end of its log if it doesn't."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("ready "):
                return line.split()[1]
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().splitlines()
    raise Failure("the demo's server didn't start" + "".join(f"\n  {line}" for line in said[-5:]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
