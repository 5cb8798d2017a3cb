"""`tallystick allocate`: cost that no call caused, spread over those who are to bear it."""

from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from tallystick.cli.access import connect
from tallystick.cli.options import Form, connected, formatted, setting_option
from tallystick.cli.output import Field, count, emit, money, percent, text
from tallystick.cli.who import me
from tallystick.settings import Settings

_TABLE_ROWS = 20


@click.command()
@click.argument("rule", required=False)
@click.option("--period", metavar="PERIOD", help="A month (2026-10), week (2026-W42) or day (2026-10-05) of UTC.")
@click.option("--amount", metavar="USD", help="How much, of a rule of kind amount.")
@click.option("--reason", default="", help="Why, as it stands with every entry; the rule's own if not given.")
@click.option("--again", is_flag=True, help="Undo what was allocated by the rule for the period, and allocate anew.")
@click.option("--dry-run", is_flag=True, help="Say who would bear what, and enter nothing.")
@click.option("--list", "as_list", is_flag=True, help="List the rules, and what was allocated when.")
@setting_option("config")
@formatted
@connected
def allocate(
    *,
    rule: str | None,
    period: str | None,
    amount: str | None,
    reason: str,
    again: bool,
    dry_run: bool,
    as_list: bool,
    config: Path | None,
    form: Form,
    settings: Settings,
) -> None:
    """Allocate shared cost (overhead, platform fees, idle GPUs) by a RULE of `allocations:` in the configuration file.

    Entries are appended, one a day and bearer, and sum to the amount to the last decimal. A rule is allocated once for a period.
    A running server takes the rules of its own file; --config is for a directory without one. Rules: docs/allocation.md.

    \b
    tallystick allocate --list
    tallystick allocate overhead --period 2026-10 --dry-run
    tallystick allocate overhead --period 2026-10 --reason "hidden cost of October"
    tallystick allocate audit --period 2026-10 --amount 1200 --again
    """
    settings = settings if config is None else replace(settings, config=config)
    if as_list:
        if rule is not None:
            raise click.UsageError("--list takes no RULE")
        _list(form, settings)
        return
    if rule is None or period is None:
        raise click.UsageError("RULE and --period are needed; --list shows the rules")
    question = {
        "period": period, "amount": _amount(amount), "reason": reason, "again": again, "dry_run": dry_run,
    }  # fmt: skip
    with connect(settings) as ledger:
        found = ledger.allocate(rule, question, who=me())
    total = Decimal(found["amount_usd"])
    rows = [
        {
            "tenant": one["tenant"],
            **one["who"],
            "cost_usd": Decimal(one["cost_usd"]),
            "share": float(Decimal(one["cost_usd"]) / total),
        }
        for one in found["shares"]
    ]
    names = [name for name in rows[0] if name not in {"cost_usd", "share"}]
    fields = [Field(name, name, text) for name in names]
    shown = rows[:_TABLE_ROWS] if form == "table" else rows
    footer = {"tenant": f"total of {found['bearers']:,}", "cost_usd": total}
    emit(
        form, shown, [*fields, Field("cost_usd", "USD", money, right=True), Field("share", "share", percent, right=True)], footer
    )
    if form == "table":
        click.echo(_below(found), err=True)


def _list(form: Form, settings: Settings) -> None:
    with connect(settings) as ledger:
        found = ledger.allocations()
    latest: dict[str, dict[str, Any]] = {}
    for run in found["runs"]:
        name, _, period = run["key"].rpartition(" ")
        if not run["undone_by"]:
            latest.setdefault(name, run | {"period": period})
    rules = {one["name"]: one for one in found["rules"]}
    rows = [_rule(name, rules.get(name), latest.get(name)) for name in dict.fromkeys((*rules, *latest))]
    fields = [
        Field("rule", "rule", text),
        Field("kind", "kind", text),
        Field("over", "over", text),
        Field("by", "by", text),
        Field("every", "every", text),
        Field("last_period", "last for", lambda value: "never" if value is None else str(value)),
        Field("cost_usd", "USD", lambda value: "" if value is None else money(value), right=True),
        Field("entries", "entries", lambda value: "" if value is None else count(value), right=True),
        Field("at", "at", lambda value: (value or "")[:16].replace("T", " ")),
        Field("author", "by whom", lambda value: value or ""),
        Field("correction", "run", lambda value: value or ""),
    ]
    emit(form, rows, fields)
    if form == "table" and not rows:
        click.echo("no rules: write `allocations:` into the configuration file, see docs/allocation.md", err=True)


def _rule(name: str, rule: dict[str, Any] | None, run: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "rule": name,
        "kind": rule["kind"] if rule else "not in the file any more",
        "over": ", ".join(rule["over"]) if rule else "",
        "by": rule["by"] if rule else "",
        "every": rule["period"] if rule else "",
        "last_period": run["period"] if run else None,
        "cost_usd": Decimal(run["cost_usd"]) if run else None,
        "entries": run["entries"] if run else None,
        "at": run["at"] if run else None,
        "author": run["author"] if run else None,
        "correction": run["id"] if run else None,
    }


def _amount(given: str | None) -> str | None:
    try:
        return None if given is None else f"{Decimal(given):f}"
    except InvalidOperation:
        raise click.BadParameter(f"{given!r} is no amount: write 1200 or 99.95", param_hint="--amount") from None


def _below(found: dict[str, Any]) -> str:
    left = found["bearers"] - _TABLE_ROWS
    lines = [f"{left:,} more bear the rest; --json names them"] if left > 0 else []
    lines += [f"{found['rule']} {found['period']}: {found['how']}", *found["notes"]]
    run = found["correction"]
    if run is None:
        lines.append("nothing was entered: --dry-run")
    else:
        lines.append(f"{run['entries']:,} entries made as {run['id']}; `tallystick corrections undo {run['id']}` takes them back")
    return "\n".join(lines)
