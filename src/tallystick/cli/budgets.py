"""`tallystick budgets`: amounts for a period, how they stand, and who changed them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.access import running
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import Field, percent, print_json, print_table, text
from tallystick.cli.who import me
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.alerts.config_yaml import Problem

_VALUES = 10
"""Of a budget with `each`, in a table."""


@click.group()
def budgets() -> None:
    """Budgets: amounts for a period, of which channels hear in time. docs/budgets.md has every field.

    \b
    tallystick budgets validate budgets.yaml      what is wrong with a file, with line and field
    tallystick budgets list                       how all of them stand
    tallystick budgets set acme amount=100 period=month scope.customer=acme notify=team
    """


@budgets.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def validate(*, file: Path, as_json: bool) -> None:
    """Check a file's channels, budgets and rules, as --config takes it. Needs no server; environment variables have to be set.

    Prints FILE:LINE:COLUMN: FIELD: what is wrong; fails if anything is. Warnings keep nothing out.

    \b
    tallystick budgets validate budgets.yaml
    tallystick budgets validate budgets.yaml --json
    """
    from tallystick.alerts.channels.open import channel_for
    from tallystick.alerts.config import Config, load_config
    from tallystick.alerts.config_yaml import ConfigError

    allow_private = bool(Settings.load().allow_private_webhooks)
    try:
        config = load_config(
            file,
            os.environ,
            open_channel=lambda name, channel: channel_for(name, channel, allow_private=allow_private),
        )
    except ConfigError as error:
        config = Config(problems=error.problems)
    if as_json:
        print_json([*_told("problem", config.problems), *_told("warning", config.warnings)])
    else:
        for problem in config.problems:
            click.echo(problem)
        for warning in config.warnings:
            click.echo(f"{warning} (a warning)")
        if not config.problems:
            counts = {"channels": len(config.channels), "budgets": len(config.budgets), "rules": len(config.rules)}
            click.echo(f"{file}: fine; {', '.join(f'{what}: {number:,}' for what, number in counts.items())}")
    if config.problems:
        raise click.exceptions.Exit(1)


@budgets.command("list")
@json_option
@connected
def list_(*, as_json: bool, settings: Settings) -> None:
    """List all budgets and how they stand in the present period, those values first that spent most.

    \b
    tallystick budgets list
    tallystick budgets list --json
    """
    with running(settings) as server:
        found = server.budgets(_VALUES)
    if as_json:
        print_json(found["budgets"])
    elif found["budgets"]:
        _table(found["budgets"])
    for problem in found["problems"]:
        click.echo(f"left out: {_place(problem)}", err=True)
    for warning in found["warnings"]:
        click.echo(f"warning: {_place(warning)}", err=True)
    if not found["budgets"] and not found["problems"]:
        click.echo("no budgets; docs/budgets.md has some to copy", err=True)


@budgets.command()
@click.argument("name")
@json_option
@connected
def show(*, name: str, as_json: bool, settings: Settings) -> None:
    """Show a budget: its definition, and how each value stands.

    \b
    tallystick budgets show acme
    tallystick budgets show acme --json
    """
    with running(settings) as server:
        found = server.budget(name)
    if as_json:
        print_json([found])
        return
    facts = {key: value for key, value in found["definition"].items() if value not in (None, [], {}, "0")}
    facts |= {"source": found["source"], "revision": _revision(found)}
    print_table(
        [{"what": key.replace("_", " "), "value": _written(value)} for key, value in facts.items()],
        [Field("what", "", text), Field("value", "", text)],
    )
    _table([found])


@budgets.command()
@click.argument("name")
@json_option
@connected
def history(*, name: str, as_json: bool, settings: Settings) -> None:
    """List a budget's revisions, with who made them and when, the oldest first; also of one that was deleted.

    \b
    tallystick budgets history acme
    tallystick budgets history acme --json
    """
    with running(settings) as server:
        found = server.budget_history(name)
    if as_json:
        print_json([found])
        return
    rows = [
        {"at": one["at"], "who": one["author"], "what": f"revision {one['revision']}", "change": _difference(before, one)}
        for before, one in zip([None, *found["revisions"]], found["revisions"], strict=False)
    ]
    rows += [
        {"at": one["at"], "who": one["author"], "what": "deleted" if one["definition"] is None else "set", "change": ""}
        for one in found["changes"]
    ]
    rows.sort(key=lambda row: datetime.fromisoformat(row["at"]))
    print_table(
        rows, [Field("at", "at", _second), Field("what", "what", text), Field("who", "who", text), Field("change", "", str)]
    )


@budgets.command("set")
@click.argument("name")
@click.argument("fields", nargs=-1, required=True, metavar="FIELD=VALUE...")
@connected
def set_(*, name: str, fields: Sequence[str], settings: Settings) -> None:
    """Make a budget on the server, or change fields of one that was made so. Budgets of its file are changed there.

    Values are YAML; PART.KEY=VALUE is one key of a part; FIELD= takes a field back.

    \b
    tallystick budgets set acme amount=100 period=month scope.customer=acme notify=team
    tallystick budgets set acme amount=200 thresholds="[50, 80, 100, forecast 100]"
    tallystick budgets set acme quiet_hours="{from: 22:00, until: 07:00, except: 100}" owners=
    """
    changes = [_parsed(field) for field in fields]
    with running(settings) as server:
        kept = server.put_budget(name, _with(_made(server.budget_history, name), changes), who=me())
    said = "is kept; the next evaluation judges by it" if kept["changed"] else "is so already"
    click.echo(f"{name} {said}")


@budgets.command()
@click.argument("name")
@connected
def delete(*, name: str, settings: Settings) -> None:
    """Delete a budget that was made on the server; its history stays.

    \b
    tallystick budgets delete acme
    """
    with running(settings) as server:
        server.delete_budget(name, who=me())
    click.echo(f"{name} is deleted; `tallystick budgets history` still has it")


def _told(kind: str, found: Iterable["Problem"]) -> list[dict[str, Any]]:
    return [{"kind": kind, **asdict(problem)} for problem in found]


def _table(found: Sequence[Mapping[str, Any]]) -> None:
    from tallystick.alerts import figures
    from tallystick.alerts.model import Measure

    rows = []
    for budget in found:
        measure = Measure(budget["measure"])

        def amount(value: str, measure: Measure = measure) -> str:
            return figures.amount(Decimal(value), measure)

        for value in budget["values"]:
            foreseen = value["forecast"]
            rows.append({
                "name": budget["name"],
                "value": value["value"] if budget["definition"]["each"] else None,
                "period": budget["period"]["label"],
                "spent": amount(value["spent"]),
                "limit": amount(budget["limit"]),
                "used": figures.percent(Decimal(value["percent"])),
                "forecast": amount(foreseen["expected"]) if foreseen else "",
                "said": ", ".join(one["threshold"].removeprefix("actual:").replace(":", " ") for one in value["said"]),
                "priced": percent(Decimal(value["priced_share"])) if value["priced_share"] is not None else "–",
            })  # fmt: skip
        if (left_out := budget["values_total"] - len(budget["values"])) > 0 or not budget["values"]:
            empty = dict.fromkeys(("spent", "used", "forecast", "said", "priced"), "")
            more = f"and {left_out:,} more" if left_out > 0 else "nothing spent"
            limit, period = amount(budget["limit"]), budget["period"]["label"]
            rows.append(empty | {"name": budget["name"], "value": more, "limit": limit, "period": period})
    print_table(
        rows,
        [
            Field("name", "budget", text),
            Field("value", "each", lambda value: "" if value is None else text(value)),
            Field("period", "period", str),
            Field("spent", "spent", str, right=True),
            Field("limit", "of", str, right=True),
            Field("used", "used", str, right=True),
            Field("forecast", "forecast", str, right=True),
            Field("said", "said", str),
            Field("priced", "priced", str, right=True),
        ],
    )


def _revision(found: Mapping[str, Any]) -> str:
    if found["revision"] is None:
        return "none yet: the next evaluation makes it"
    return f"{found['revision']}, by {found['author']} at {_second(found['since'])}"


def _written(value: Any) -> str:
    match value:
        case dict():
            return "; ".join(f"{key}: {_written(item)}" for key, item in value.items() if item not in (None, []))
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _difference(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    old: Mapping[str, Any] = before["definition"] if before else {}
    new: Mapping[str, Any] = now["definition"]
    fields = [field for field in (*new, *(old.keys() - new.keys())) if old.get(field) != new.get(field) and field != "name"]
    return "; ".join(
        f"{field}: {_written(old[field]) + ' → ' if field in old else ''}{_written(new[field]) if field in new else 'as usual'}"
        for field in fields
    )


def _parsed(given: str) -> tuple[str, str, Any]:
    """Field, key in it or '', value; None takes it back."""
    from tallystick.alerts.config_yaml import ConfigError, read

    name, equals, value = given.partition("=")
    field, _, key = name.partition(".")
    if not equals or not field:
        raise click.BadParameter(f"{given!r} isn't FIELD=VALUE", param_hint="FIELD=VALUE")
    try:
        return field, key, read(value, name, {}, filled=lambda _: False).value
    except ConfigError as error:
        told = "; ".join(problem.text for problem in error.problems)
        raise click.BadParameter(f"{name}: {told}", param_hint="FIELD=VALUE") from None


def _made(history: Any, name: str) -> dict[str, Any]:
    """The definition that is kept on the server; {} where there is none."""
    from tallystick.client import Refused

    try:
        changes = history(name)["changes"]
    except Refused as error:
        if error.code == "no_such_budget":
            return {}
        raise
    return dict(changes[-1]["definition"] or {}) if changes else {}


def _with(definition: dict[str, Any], changes: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    for field, key, value in changes:
        if not key:
            definition[field] = value
        else:
            part = definition.get(field)
            inner = dict(part) if isinstance(part, dict) else {}
            inner[key] = value
            definition[field] = {name: one for name, one in inner.items() if one is not None}
    return {field: value for field, value in definition.items() if value is not None}


def _place(problem: Mapping[str, Any]) -> str:
    where = ":".join(str(problem[part]) for part in ("file", "line", "column") if problem[part] is not None)
    return f"{where}: {problem['field']}: {problem['text']}" if problem["field"] else f"{where}: {problem['text']}"


def _second(at: str) -> str:
    return at[:19].replace("T", " ")
