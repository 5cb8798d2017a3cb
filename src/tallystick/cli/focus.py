"""`tallystick focus`: the ledger as files of the FinOps Open Cost and Usage Specification."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.access import Ledger, connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted, json_option
from tallystick.cli.output import Field, count, emit, money, percent, print_json, text
from tallystick.cli.when import end_of_day, moment_option
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.attribution.focus.question import Day, Question, Tally
    from tallystick.attribution.focus.question import Form as FileForm

_DAY_NS = 86_400_000_000_000


@click.group()
def focus() -> None:
    """Files for the FinOps tool that you have: FOCUS 1.2 and 1.4, one row for each period, price, customer and token type.

    \b
    tallystick focus export --since 2026-10-01 --until 2026-11-01 -o focus
    tallystick focus columns --version 1.4
    """


@focus.command()
@click.option("--version", default="1.2", show_default=True, help="Of FOCUS: 1.2 is what most tools read, 1.4 is current.")
@moment_option("--since", default="30d")
@moment_option("--until", default=None)
@click.option("--granularity", type=click.Choice(["daily", "hourly"]), default="daily", show_default=True, help="Charge periods.")
@click.option(
    "--format", "file_form", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True, help="Of the files."
)
@click.option(
    "-o", "--output", "directory", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory of the files."
)
@click.option("--customer", help="This customer's charges alone.")
@click.option("--full", is_flag=True, help="Write all days again, not only those that changed.")
@formatted
@connected
def export(
    *,
    version: str,
    since: int,
    until: int | None,
    granularity: Any,
    file_form: Any,
    directory: Path,
    customer: str | None,
    full: bool,
    form: Form,
    settings: Settings,
) -> None:
    """Write one file a day (UTC), and only of days that changed since the last time: late calls, corrections.

    An export that was cut off is finished by the next. manifest.json names the files, their sums and checksums. The sum of BilledCost
    is the ledger's to the last decimal; calls without a price are in with their tokens, a cost of 0, and x_Priced false.

    \b
    tallystick focus export --since 2026-10-01 --until 2026-11-01 -o focus/
    tallystick focus export --version 1.4 --granularity hourly --format csv -o focus-hourly/
    tallystick focus export --customer acme -o acme/ --json
    """
    from tallystick.attribution.focus import directory as files
    from tallystick.attribution.focus.columns import UnknownVersion

    now_ns = time.time_ns()
    if since > now_ns:
        raise click.BadParameter("the period lies in the future", param_hint="--since")
    since_ns = since // _DAY_NS * _DAY_NS
    until_ns = end_of_day(now_ns) if until is None else -(-until // _DAY_NS) * _DAY_NS
    if since_ns >= until_ns:
        raise click.UsageError("--since isn't before --until, which is the end of today unless given")
    # The engine moves into its directory.
    target = directory.absolute()
    shape = files.Shape(version, granularity, file_form, customer)
    done: list[files.Outcome] = []
    try:
        with connect(settings) as ledger:
            done.extend(files.export(target, shape, _Source(ledger), since_ns, until_ns, full=full))
    except UnknownVersion as error:
        raise click.BadParameter(str(error), param_hint="--version") from None
    except files.OtherExport as error:
        raise Failure(str(error)) from None
    except (files.DirectoryInUse, files.DoesNotAddUp) as error:
        raise Failure(str(error), "nothing of the day was kept; run it again") from None
    rows = [{**one._asdict(), "tokens_priced": _priced(one)} for one in done]
    footer = {
        "day": f"{len(done):,} {'day' if len(done) == 1 else 'days'}",
        "rows": sum(one.rows for one in done),
        "cost_usd": sum((one.cost_usd for one in done), Decimal(0)),
        "tokens_priced": _share(sum(one.tokens for one in done), sum(one.unpriced_tokens for one in done)),
    }
    emit(form, rows, _FIELDS, footer)
    if form == "table":
        click.echo(_below(done, directory), err=True)


@focus.command()
@click.option("--version", default="1.2", show_default=True, help="Of FOCUS.")
@json_option
def columns(*, version: str, as_json: bool) -> None:
    """What stands in each column.

    \b
    tallystick focus columns
    tallystick focus columns --version 1.4 --json
    """
    from tallystick.attribution.focus import columns as described

    try:
        found = described.columns(version)
    except described.UnknownVersion as error:
        raise click.BadParameter(str(error), param_hint="--version") from None
    rows = [
        {name: value for name, value in asdict(column).items() if name in ("name", "type", "level", "nulls", "meaning")}
        for column in found
    ]
    if as_json:
        print_json(rows)
        return
    fields = [
        Field("name", "column", text),
        Field("type", "type", text),
        Field("level", "level", text),
        Field("meaning", "what stands in it", text),
    ]
    emit("table", rows, fields)


class _Source:
    """The ledger, as exports ask it: `attribution.focus.directory.Source`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def focus_days(self, question: "Question") -> "list[Day]":
        from tallystick.attribution.focus.question import Day

        return [
            Day(
                day["day"],
                day["entries"],
                datetime.fromisoformat(day["entered_at"]),
                Decimal(day["cost_usd"]),
                day["tokens"],
                day["unpriced_tokens"],
            )
            for day in self._ledger.focus_days(**_asked(question))
        ]

    def focus_tally(self, question: "Question") -> "Tally":
        from tallystick.attribution.focus.question import Tally

        (day,) = self._ledger.focus_days(**_asked(question), rows=True)
        return Tally(day["rows"], Decimal(day["billed_usd"]))

    def focus(self, question: "Question", form: "FileForm") -> Iterator[bytes]:
        return self._ledger.focus(**_asked(question), format=form)


def _asked(question: "Question") -> dict[str, Any]:
    named = {
        "version": question.version,
        "granularity": question.granularity,
        "since": _time(question.since_ns),
        "until": _time(question.until_ns),
        "customer": question.customer,
        "as_of": question.as_of.isoformat() if question.as_of else None,
    }
    return {name: value for name, value in named.items() if value is not None}


def _time(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _priced(one: Any) -> float | None:
    return _share(one.tokens, one.unpriced_tokens)


def _share(tokens: int, unpriced: int) -> float | None:
    return (tokens - unpriced) / tokens if tokens else None


def _below(done: list[Any], directory: Path) -> str:
    if not done:
        return "no charges in this time"
    how_many = {what: sum(one.done == what for one in done) for what in ("written", "unchanged", "kept")}
    lines = [f"{directory}: written {how_many['written']:,}, unchanged {how_many['unchanged']:,}"]
    if how_many["kept"]:
        lines.append(
            f"{how_many['kept']} kept: the ledger has deleted entries of these days for their age; --full writes what is left"
        )
    unpriced = sum(one.unpriced_tokens for one in done)
    if unpriced:
        lines.append(
            f"{unpriced:,} tokens have no price: their rows cost 0, with x_Priced false; `tallystick prices missing` lists them"
        )
    return "\n".join(lines)


_FIELDS = [
    Field("day", "day", text),
    Field("done", "", text),
    Field("file", "file", text),
    Field("rows", "rows", count, right=True),
    Field("cost_usd", "USD", money, right=True),
    Field("tokens_priced", "priced", percent, right=True),
]
