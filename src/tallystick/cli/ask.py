"""`tallystick ask`: the questions that everybody asks, by name."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tallystick.cli.access import connect
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, count, emit, money, text
from tallystick.client import Column
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.attribution.questions import Question


@click.command()
@click.argument("name", required=False)
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the question; repeatable.")
@click.option("--by", metavar="DIMENSIONS", help="What to group by.")
@click.option("--since", metavar="TIME", help="From when on: an age (30d, 24h, 15m) or a time (UTC if no zone).")
@click.option("--until", metavar="TIME", help="Before when.")
@click.option("--where", multiple=True, metavar="DIMENSION=VALUE", help="Only such entries; repeatable.")
@click.option("--describe", is_flag=True, help="Say what the question answers, its figures and parameters, and ask nothing.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL, its parameters as comments, and ask nothing.")
@formatted
@connected
def ask(
    *,
    name: str | None,
    params: Sequence[str],
    by: str | None,
    since: str | None,
    until: str | None,
    where: Sequence[str],
    describe: bool,
    as_sql: bool,
    form: Form,
    settings: Settings,
) -> None:
    """Ask a named question; without NAME, list them.

    A question has parameters of its own, which --describe lists, and figures that it defines. --by, --since, --until and --where are those that
    most have; --param gives any.

    \b
    tallystick ask
    tallystick ask spend --by customer,feature --since 30d
    tallystick ask top-drivers --by model --since 7d --param order=change --json
    tallystick ask unit-costs --describe
    """
    from tallystick.attribution.questions import BadParameter, UnknownQuestion, ask_query, question, questions

    if name is None:
        _list(list(questions().values()), form)
        return
    given: dict[str, list[str]] = {}
    for key, value in [*_pairs(params), ("by", by), ("since", since), ("until", until), *(("where", one) for one in where)]:
        if value is not None:
            given.setdefault(key, []).append(value)
    try:
        asked = question(name)
        if describe:
            _describe(asked, form)
            return
        query = ask_query(name, given, datetime.now(UTC))
    except UnknownQuestion as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None
    except BadParameter as error:
        raise click.UsageError(f"{error}\n`tallystick ask {name} --describe` lists the parameters") from None
    if as_sql:
        for key, bound in query.params.items():
            click.echo(f"-- {key} = {bound!r}")
        click.echo(query.text)
        return
    with connect(settings) as ledger:
        found = ledger.sql(query.text, query.params)
    emit(form, found.dicts(), [_field(column) for column in found.columns])
    if form == "table":
        rows = len(found.rows)
        click.echo(f"{asked.sentence} {rows:,} {'row' if rows == 1 else 'rows'}; --describe defines the figures", err=True)


def _pairs(params: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{param!r} isn't NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _list(all_: "Sequence[Question]", form: Form) -> None:
    rows = [{"name": one.name, "sentence": one.sentence, "example": one.example} for one in all_]
    emit(form, rows, [Field("name", "question", text), Field("sentence", "what it answers", text)])
    if form == "table":
        click.echo("tallystick ask NAME --describe says what its figures and parameters are", err=True)


def _describe(asked: "Question", form: Form) -> None:
    parameters = [vars(parameter) for parameter in asked.parameters.values()]
    if form != "table":
        row = {"name": asked.name, "sentence": asked.sentence, "definition": dict(asked.definition)}
        emit(form, [{**row, "parameters": parameters, "example": asked.example}], [])
        return
    click.echo(f"{asked.name}: {asked.sentence}\n\n  {asked.example}\n")
    emit(
        form,
        [{"name": one, "meaning": told} for one, told in asked.definition.items()],
        [Field("name", "figure", text), _MEANING],
    )
    fields = [Field("name", "parameter", text), Field("kind", "kind", text), Field("default", "default", _default), _MEANING]
    emit(form, [parameter | {"meaning": _meaning(parameter)} for parameter in parameters], fields)


_MEANING = Field("meaning", "meaning", text)


def _default(value: str | None) -> str:
    return "–" if value is None else value


def _meaning(parameter: dict[str, Any]) -> str:
    choices = ", ".join(parameter["choices"])
    return f"{parameter['meaning']} ({choices})" if choices else str(parameter["meaning"])


def _field(column: Column) -> Field:
    kind = column.type.removeprefix("LowCardinality(").removeprefix("Nullable(")
    match kind:
        case _ if kind.startswith("Decimal"):
            return Field(column.name, column.name, _amount(column.name), right=True)
        case _ if kind.startswith(("UInt", "Int")):
            return Field(column.name, column.name, count, right=True)
        case _ if kind.startswith("Float"):
            return Field(column.name, column.name, _figure, right=True)
    return Field(column.name, column.name, text)


def _amount(name: str) -> Callable[[Any], str]:
    # Only of a cost is it known why there is none.
    if name == "cost_usd":
        return money
    return lambda value: "–" if value is None else money(value) if name.endswith("_usd") else _figure(value)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
