"""`tallystick replay`: traces of real traffic as spans through a server's endpoint."""

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import click

from tallystick.cli.access import sending_url
from tallystick.cli.failure import Failure
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import console, print_json
from tallystick.client import Client
from tallystick.settings import Settings
from tallystick.traffic import shipped
from tallystick.traffic.calls import Call, Timeline, as_recorded, calls, moved_to_yesterday
from tallystick.traffic.files import BadLine, NotATrace, TraceFile, open_trace
from tallystick.traffic.send import Sent, batched, paced, send

_SHOWN_LINES = 5


class Source(NamedTuple):
    """A trace and where its times fall."""

    trace: TraceFile
    timeline: Timeline


@dataclass
class Tally:
    """What a replay read: calls, their tokens, and the lines that held none, by file."""

    calls: int = 0
    tokens: int = 0
    bad: dict[Path, list[BadLine]] = field(default_factory=dict)

    def read(self, source: Source, seed: int) -> Iterator[Call]:
        """The source's calls, counted; lines without one are kept in `bad`."""
        for item in calls(source.trace, seed, source.timeline):
            if isinstance(item, BadLine):
                self.bad.setdefault(source.trace.path, []).append(item)
                continue
            self.calls += 1
            self.tokens += item.input_tokens + item.cache_read_tokens + item.cache_write_tokens + item.output_tokens
            yield item


class _Speed(click.ParamType[float | None]):
    name = "N|max"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value in (None, "max"):
            return None
        try:
            speed = float(str(value))
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            self.fail(f"{value!r} is neither max nor a number above 0", param, ctx)
        return speed


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--speed", type=_Speed(), default="max", show_default=True, help="max, or N times the pace at which it happened.")
@click.option(
    "--shift-to-now", is_flag=True, help="Move calls to yesterday (--speed max) or to now, instead of their recorded time."
)
@click.option(
    "--seed", default=0, show_default=True, help="Another seed spreads the calls over customers and models differently."
)
@json_option
@connected
def replay(
    *, files: Sequence[Path], speed: float | None, shift_to_now: bool, seed: int, as_json: bool, settings: Settings
) -> None:
    """Send traces of real traffic to a server as spans. Without FILE: those that ship with tallystick, 40,216 calls.

    A trace has token counts and times only. Who called, and which model answered, is invented, but always the same for the same
    file, line and seed: calls are entered once, however often a trace is replayed at the same times. Known are Azure's LLM
    inference traces (CSV) and Mooncake's (JSON lines, whose prefix hashes give true cache reads), plain or gzip-compressed.
    Mooncake's times are relative, so that they are always moved.

    \b
    tallystick replay
    tallystick replay azure_2023_conv.csv --shift-to-now
    tallystick replay mooncake_conversation.jsonl --speed 60 --url http://127.0.0.1:4318
    """
    now_ns = time.time_ns()
    traces = opened(files or shipped())
    move = shift_to_now or not files
    sources = [Source(trace, _timeline(trace, now_ns, speed, move=move or not trace.dated)) for trace in traces]
    tally = Tally()
    streams = [tally.read(source, seed) for source in sources]
    batches = batched(chain(*streams)) if speed is None else paced(due(sources, streams, now_ns, speed))
    with Client(sending_url(settings), settings.key) as client:
        started = time.monotonic()
        sent = deliver(client, batches, sum(trace.lines for trace in traces))
        took = time.monotonic() - started
    _report(tally, sent, took, as_json=as_json)
    if tally.bad or sent.rejected:
        raise Failure(_losses(tally, sent, {trace.path: trace.lines for trace in traces}))


def due(sources: Sequence[Source], streams: Sequence[Iterable[Call]], now_ns: int, speed: float) -> Iterator[tuple[int, Call]]:
    """Calls of all sources in the order, and each with the time, in which they are due: every source starts at `now_ns`."""

    def timed(source: Source, stream: Iterable[Call]) -> Iterator[tuple[int, Call]]:
        # Calls that were moved to now stand at the time at which they are due already.
        moved = source.timeline.start_ns == now_ns
        pace = Timeline() if moved else Timeline(source.trace.first_ns, now_ns, speed)
        return ((pace.at(call.started_ns), call) for call in stream)

    return heapq.merge(*map(timed, sources, streams), key=itemgetter(0))


def opened(files: Iterable[Path]) -> list[TraceFile]:
    """The files as traces. Raises Failure for one that is none."""
    try:
        return [open_trace(path) for path in files]
    except NotATrace as error:
        raise Failure(str(error)) from None


def deliver(client: Client, batches: Iterable[list[Call]], spans: int) -> Sent:
    """Send batches of about `spans` calls in all, with a progress bar on a terminal. Raises what Client.send raises."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as progress:
        task = progress.add_task("sending", total=spans)
        return send(client, batches, lambda arrived: progress.advance(task, arrived))


def _timeline(trace: TraceFile, now_ns: int, speed: float | None, *, move: bool) -> Timeline:
    if not move:
        return as_recorded()
    if speed is None:
        return moved_to_yesterday(trace, now_ns)
    return Timeline(origin_ns=trace.first_ns, start_ns=now_ns, speed=speed)


def _report(tally: Tally, sent: Sent, took_s: float, *, as_json: bool) -> None:
    speed = sent.spans / took_s if took_s else 0.0
    if as_json:
        figures = {"calls": tally.calls, "tokens": tally.tokens, "accepted_spans": sent.spans, "rejected_spans": sent.rejected}
        print_json([{**figures, "requests": sent.requests, "retries": sent.retries, "seconds": round(took_s, 3)}])
        return
    retried = f", {sent.retries:,} tried again" if sent.retries else ""
    pace = f"{speed:,.0f} spans/s, {sent.requests:,} requests{retried}"
    click.echo(f"{sent.spans:,} calls with {tally.tokens:,} tokens in {took_s:.1f} s: {pace}")


def _losses(tally: Tally, sent: Sent, lines: dict[Path, int]) -> str:
    told = []
    for path, bad in tally.bad.items():
        told.append(f"{path}: {len(bad):,} of {lines[path]:,} lines hold no call and were passed over, the others were sent")
        told += [f"  line {line}: {problem}" for line, problem in bad[:_SHOWN_LINES]]
        if len(bad) > _SHOWN_LINES:
            told.append(f"  and {len(bad) - _SHOWN_LINES:,} more")
    told += [f"the server rejected {spans:,} spans: {reason or 'no reason given'}" for reason, spans in sent.reasons.items()]
    return "\n".join(told)
