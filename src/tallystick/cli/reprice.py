"""`tallystick reprice`: calls of the past at the present prices."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tallystick.cli.access import connect
from tallystick.cli.corrections import below, period_options
from tallystick.cli.options import Form, connected, formatted, setting_option
from tallystick.cli.output import Field, count, emit, money, percent, text
from tallystick.cli.who import me
from tallystick.settings import Settings


@click.command()
@period_options
@click.option("--model", metavar="GLOB", help="Only of such models, as asked for or as answered; * and ? stand for anything.")
@click.option("--provider", help="Only of this provider.")
@click.option("--customer", help="Only of this customer.")
@setting_option("config")
@formatted
@connected
def reprice(
    *, since: str | None, until: str | None, tenant: str | None, reason: str | None, dry_run: bool, model: str | None, provider: str | None,
    customer: str | None, config: Path | None, form: Form, settings: Settings,
) -> None:  # fmt: skip
    """Price calls again by the present prices, and enter for each whose cost changes the difference to what the ledger holds.

    Present are the prices of the server; without one those of genai-prices and --config. Nothing of the ledger is changed: differences are
    entries of their own, all of them or none, and can be undone. What was voided isn't priced, and a second time changes nothing. A call
    that has no price any more keeps its cost.

    \b
    tallystick reprice --since 2026-10-01 --until 2026-11-01 --model 'claude-sonnet-*' --dry-run
    tallystick reprice --since 2026-10-01 --model gpt-5.4 --reason 'price list of 1 October was late'
    tallystick reprice --since 90d --customer globex --reason 'discount agreed in August' --json
    """
    if since is None:
        raise click.UsageError("--since is needed: how far back?")
    settings = settings if config is None else replace(settings, config=config.absolute())
    question = {"since": since, "until": until, "tenant": tenant, "model": model, "provider": provider, "customer": customer}
    with connect(settings) as ledger:
        found = ledger.reprice({**question, "reason": reason or "dry run", "dry_run": dry_run}, who=me())
    if form == "json":
        emit(form, [found], [])
        return
    rows = [{**row, "cost_usd": Decimal(row["cost_usd"])} for row in found["differences"]]
    emit(form, rows, _FIELDS)
    if form == "table":
        click.echo(_summary(found), err=True)


_FIELDS = (
    Field("by", "by", text),
    Field("value", "", text),
    Field("calls", "calls changed", count, right=True),
    Field("cost_usd", "difference, USD", money, right=True),
)


def _summary(found: dict[str, Any]) -> str:
    before, after = found["before"], found["after"]
    lines = [
        f"{found['looked_at']:,} calls looked at, {found['changed']:,} of another cost, {found['newly_priced']:,} of them unpriced until now",
        f"{_usd(before)} USD before, {_usd(after)} after: {_signed(Decimal(found['cost_usd']))}",
        f"{_share(before)} of tokens priced before, {_share(after)} after",
    ]
    if found["unpriced"]:
        lines.append(f"{found['unpriced']:,} calls have no price; `tallystick prices missing` lists them")
    if found["price_lost"]:
        lines.append(f"{found['price_lost']:,} calls keep their cost although their model has no price any more")
    return "\n".join([*lines, below(found)])


def _usd(coverage: dict[str, Any]) -> str:
    return money(Decimal(coverage["cost_usd"]))


def _signed(amount: Decimal) -> str:
    return f"{'+' if amount > 0 else ''}{money(amount)}"


def _share(coverage: dict[str, Any]) -> str:
    return percent(coverage["priced_tokens"] / coverage["tokens"] if coverage["tokens"] else None)
