"""`tallystick corrections`: what was corrected, why and by whom; and taking it back."""

from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar, cast

import click

from tallystick.cli.access import connect
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, count, emit, money, text
from tallystick.cli.who import me
from tallystick.settings import Settings

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group(invoke_without_command=True)
@click.pass_context
def corrections(context: click.Context) -> None:
    """Corrections: repricings, voids, allocations and trueups, each with its reason and author.

    \b
    tallystick corrections                    the latest
    tallystick corrections show 3f9a1c22
    tallystick corrections undo 3f9a1c22 --reason 'wrong month'
    """
    if context.invoked_subcommand is None:
        context.invoke(list_)


@corrections.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, the newest first.")
@formatted
@connected
def list_(*, limit: int, form: Form, settings: Settings) -> None:
    """List the latest corrections.

    \b
    tallystick corrections list --limit 100 --json
    """
    with connect(settings) as ledger:
        rows = [_row(row) for row in ledger.corrections(limit)]
    emit(form, rows, _FIELDS)
    if form == "table" and not rows:
        click.echo("nothing was corrected yet", err=True)


@corrections.command()
@click.argument("id")
@formatted
@connected
def show(*, id: str, form: Form, settings: Settings) -> None:
    """Show one correction, with what was asked for.

    \b
    tallystick corrections show 3f9a1c22
    """
    with connect(settings) as ledger:
        found = _row(ledger.correction(id))
    if form == "table":
        rows = [{"name": name, "value": value} for name, value in found.items() if value not in ("", {}, None)]
        emit(form, rows, [Field("name", "", text), Field("value", "", text)])
    else:
        emit(form, [found], [])


@corrections.command()
@click.argument("id")
@click.option("--reason", required=True, help="Why; it stands on each entry.")
@formatted
@connected
def undo(*, id: str, reason: str, form: Form, settings: Settings) -> None:
    """Undo a correction: enter its entries again with opposite signs.

    Of several corrections of the same calls the last is undone first. A call that was voided since stays voided.

    \b
    tallystick corrections undo 3f9a1c22 --reason 'wrong month'
    """
    with connect(settings) as ledger:
        emit(form, [_row(ledger.undo_correction(id, reason, who=me()))], _FIELDS)


def period_options(command: _F) -> _F:
    """Give a command --since, --until, --tenant, --reason and --dry-run; without the last a reason is needed."""

    @wraps(command)
    def run(*, reason: str | None, dry_run: bool, **rest: Any) -> Any:
        if not reason and not dry_run:
            raise click.UsageError("a correction needs a --reason; --dry-run shows what it would do")
        return command(reason=reason, dry_run=dry_run, **rest)

    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be entered, and enter nothing."),
        click.option("--reason", help="Why; it stands on each entry."),
        click.option("--tenant", help="Only of this tenant."),
        click.option("--until", metavar="TIME", help="Before when; everything since if not given."),
        click.option("--since", metavar="TIME", help="From when: an age (30d, 24h, 15m) or a time (UTC if no zone)."),
    ):
        run = option(run)
    return cast(_F, run)


def below(found: dict[str, Any]) -> str:
    """What stands below the table of a correction that was asked for."""
    made = found["correction"]
    if made is not None:
        return f"entered as {made['id']}: {made['entries']:,} entries, {money(Decimal(made['cost_usd']))} USD"
    return "dry run: nothing was entered" if found["dry_run"] else "nothing to enter"


def _row(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "cost_usd": Decimal(run["cost_usd"])}


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


_FIELDS = (
    Field("id", "id", text),
    Field("kind", "kind", text),
    Field("at", "at (UTC)", _minute),
    Field("entries", "entries", count, right=True),
    Field("cost_usd", "USD", money, right=True),
    Field("author", "by", text),
    Field("reason", "why", text),
    Field("undone_by", "undone by", lambda id: id or "–"),
)
