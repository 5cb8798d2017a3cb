"""`tallystick reconcile`: invoices of providers beside the ledger."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click

from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, count, emit, money, text, tokens
from tallystick.cli.when import moment_option
from tallystick.cli.who import me
from tallystick.settings import Settings

_KEYS: Final = {"openai": "OPENAI_ADMIN_KEY", "anthropic": "ANTHROPIC_ADMIN_KEY"}
_DAY_NS: Final = 86_400_000_000_000


class _Reconcile(click.Group):
    """`reconcile FILE…` is `reconcile compare FILE…`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["compare", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Reconcile, subcommand_metavar="FILE... | fetch ...")
def reconcile() -> None:
    """Compare invoices and usage reports of providers with the ledger, explain what differs, and true it up if asked.

    Read are OpenAI's usage and costs API, Anthropic's usage and cost reports (JSON, or what `fetch` wrote), Amazon Bedrock in AWS Cost and
    Usage Reports, FOCUS 1.x, and a plain CSV (day, provider, model, input_tokens …, cost_usd). See docs/reconciliation.md.

    \b
    tallystick reconcile fetch openai --since 2026-10-01 --until 2026-11-01 -o october.ndjson
    tallystick reconcile october.ndjson
    tallystick reconcile october.ndjson --true-up --reason 'invoice 4711'
    """


@reconcile.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tolerance", default="0.5%", show_default=True, metavar="PERCENT", help="How much may differ, of the invoice.")
@moment_option("--since", default=None)
@moment_option("--until", default=None)
@click.option(
    "--rate", "rates", multiple=True, metavar="CURRENCY=USD", help="What one unit of a currency was in USD; repeatable."
)
@click.option("--over", is_flag=True, help="Show only what is over the tolerance.")
@click.option(
    "--true-up", is_flag=True, help="Enter the differences, so that the ledger's total of each model and day is the invoice's."
)
@click.option("--reason", help="Why; it stands on each entry.")
@click.option(
    "--spread", type=click.Choice(["who", "none"]), default="who", show_default=True, help="Share out by what calls cost, or not."
)
@click.option("--tenant", default="default", show_default=True, help="Whose is what no call stands for.")
@formatted
@connected
def compare(
    *, files: Sequence[Path], tolerance: str, since: int | None, until: int | None, rates: Sequence[str], over: bool, true_up: bool,
    reason: str | None, spread: str, tenant: str, form: Form, settings: Settings,
) -> None:  # fmt: skip
    """Compare files with the ledger by model and day.

    \b
    tallystick reconcile compare october.ndjson --tolerance 1% --over
    tallystick reconcile bedrock.csv --since 2026-10-01 --until 2026-11-01 --csv
    tallystick reconcile invoice.csv --rate EUR=1.08 --json
    """
    if true_up != bool(reason):
        raise click.UsageError("a true-up needs a --reason" if true_up else "--reason is for --true-up")
    from tallystick.attribution.invoices.lines import BadInvoice, Invoice, combined
    from tallystick.attribution.invoices.read import MOST_BYTES, read

    known, share = _rates(rates), _share(tolerance)
    first, last = _day(since, "--since"), _day(until, "--until")
    try:
        found = []
        for file in files:
            if file.stat().st_size > MOST_BYTES:
                raise BadInvoice(str(file), f"has more than {MOST_BYTES >> 20} MiB", "split it by day")
            found.append(read(file.read_bytes(), str(file), known))
        invoice = combined(found)
    except BadInvoice as error:
        raise Failure(str(error), error.hint) from None
    lines = [line for line in invoice.lines if (first is None or line.day >= first) and (last is None or line.day < last)]
    if not lines:
        raise Failure("the files have no line in this time", f"they have {len(invoice.lines):,} of other days")
    from tallystick.server.reconcile_api import MOST_LINES, TrueUpQuestion, question

    if len(lines) > MOST_LINES:
        raise Failure(
            f"the files come to {len(lines):,} lines by model and day, of at most {MOST_LINES:,}", "take a shorter time"
        )
    wanted = TrueUpQuestion.model_validate({"reason": reason, "spread": spread, "tenant": tenant}) if true_up else None
    with connect(settings) as ledger:
        answer = ledger.reconcile(question(Invoice(lines), share, wanted), who=me())
    _show(answer, form, over)
    for note in invoice.notes if form == "table" else ():
        click.echo(f"note: {note}", err=True)


@reconcile.command()
@click.argument("provider", type=click.Choice(sorted(_KEYS)))
@moment_option("--since", required=True)
@moment_option("--until", default=None)
@click.option(
    "-o", "--output", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Where pages go."
)
@click.option("--api-url", metavar="URL", help="Of another host that speaks the same API.")
def fetch(*, provider: str, since: int, until: int | None, output: Path, api_url: str | None) -> None:
    """Fetch usage and costs with your admin key, OPENAI_ADMIN_KEY or ANTHROPIC_ADMIN_KEY, until today unless --until is given.

    A run that was stopped goes on with what FILE has.

    \b
    tallystick reconcile fetch openai --since 2026-10-01 -o october.ndjson
    tallystick reconcile fetch anthropic --since 30d --until 2026-11-01 -o october.ndjson
    """
    from tallystick.attribution.invoices.fetch import PROVIDERS, FetchFailed
    from tallystick.attribution.invoices.fetch import fetch as pages

    first, last = _day(since, "--since"), _day(until, "--until")
    assert first is not None
    last = last or datetime.now(UTC).date()
    if first >= last:
        raise click.UsageError("--since isn't before --until, which is today unless given: only whole days are compared")
    key = os.environ.get(_KEYS[provider], "").strip()
    if not key:
        raise Failure(f"{_KEYS[provider]} isn't set", f"it must hold {PROVIDERS[provider].needs}; nothing keeps or prints it")
    try:
        held = list(pages(PROVIDERS[provider], first, last, key, output, sleep=time.sleep, url=api_url))
    except FetchFailed as error:
        raise Failure(str(error), error.hint) from None
    days = f"{first} to {last - timedelta(days=1)}"
    click.echo(f"{output}: {held[-1]:,} pages of {days}" if held else f"{output} had all pages of {days} already", err=True)


def _show(answer: dict[str, Any], form: Form, over: bool) -> None:
    rows = [_row(row) for row in answer["rows"] if not over or row["verdict"] == "over"]
    totals = answer["totals"]
    if form != "table":
        emit(form, rows, _FIELDS)
        return
    sums = _row(
        {**totals, "day": "", "provider": "", "model": "", "difference": None, "verdict": "", "on_invoice": True, "parts": []}
    )
    sums |= {"day": f"{len(answer['rows']):,} rows", "model": None, "verdict": f"{totals['over']:,} over"}
    # What was never called isn't unpriced.
    shown = [row | {"cost_usd": "unpriced"} if row["cost_usd"] is None and row["calls"] else row for row in rows]
    emit("table", shown, _FIELDS, sums)
    told = [f"{kind} {money(Decimal(usd))}" for kind, usd in totals["parts"].items() if Decimal(usd)]
    if told:
        click.echo(f"the difference is, in USD: {', '.join(told)}", err=True)
    calls, priced = totals["calls"], totals["priced_calls"]
    if calls != priced:
        click.echo(f"{priced:,} of {calls:,} calls are priced; `tallystick prices missing` lists the rest", err=True)
    made = answer["correction"]
    if made is not None:
        click.echo(f"trued up as {made['id']}: {made['entries']:,} entries, {money(Decimal(made['cost_usd']))} USD", err=True)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    amounts = {
        name: None if row[name] is None else Decimal(row[name])
        for name in ("cost_usd", "invoice_usd", "difference_usd", "difference")
    }
    parts = row["parts"] if isinstance(row["parts"], list) else []
    return {**row, **amounts, "why": "; ".join(map(_part, parts))}


def _part(part: dict[str, str]) -> str:
    told = f"{part['kind']} {money(Decimal(part['usd']))}"
    return f"{told} ({part['text']})" if part["text"] else told


def _known(value: Decimal | str | None) -> str:
    return value if isinstance(value, str) else "–" if value is None else money(value)


def _model(name: str | None) -> str:
    return "" if name is None else text(name) if name else "(other)"


def _why(told: str) -> str:
    return told or "–"


def _relative(value: Decimal | None) -> str:
    return "–" if value is None else f"{value * 100:+.2f} %"


_FIELDS: Final = [
    Field("day", "day", str),
    Field("provider", "provider", str),
    Field("model", "model", _model),
    Field("calls", "calls", count, right=True),
    Field("tokens", "tokens", tokens, right=True),
    Field("invoice_tokens", "invoice", tokens, right=True),
    Field("cost_usd", "USD", _known, right=True),
    Field("invoice_usd", "invoice", _known, right=True),
    Field("difference_usd", "difference", _known, right=True),
    Field("difference", "", _relative, right=True),
    Field("verdict", "", str),
    Field("why", "why", _why),
]


def _rates(given: Sequence[str]) -> dict[str, Decimal]:
    found = {}
    for one in given:
        name, _, rate = one.partition("=")
        try:
            value = Decimal(rate)
        except InvalidOperation:
            value = Decimal(0)
        if not name.strip().isalpha() or not value.is_finite() or value <= 0:
            raise click.BadParameter(f"{one!r} isn't as EUR=1.08", param_hint="--rate")
        found[name.strip().upper()] = value
    return found


def _share(given: str) -> Decimal:
    try:
        share = Decimal(given.strip().removesuffix("%")) / 100
    except InvalidOperation:
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= 1:
        raise click.BadParameter(f"{given!r} is no percentage: write 0.5%", param_hint="--tolerance")
    return share


def _day(at_ns: int | None, name: str) -> date | None:
    if at_ns is None:
        return None
    if at_ns % _DAY_NS:
        raise click.BadParameter("invoices are compared by whole days (UTC): name a day, 2026-10-01 or 30d", param_hint=name)
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).date()
