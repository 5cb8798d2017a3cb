"""`tallystick sql`: any question."""

import sys
from collections.abc import Sequence

import click

from tallystick.cli.access import connect
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, emit, text
from tallystick.client import Column
from tallystick.settings import Settings


@click.command()
@click.argument("query")
@click.option(
    "-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Binds to {NAME:Type} in the query; repeatable."
)
@formatted
@connected
def sql(query: str, params: Sequence[str], form: Form, settings: Settings) -> None:
    """Ask the ledger anything, in ClickHouse's SQL. The view is `charges`; QUERY may be - to read it from the standard input.

    \b
    tallystick sql "SELECT feature, sum(cost_usd) FROM charges GROUP BY feature ORDER BY 2 DESC"
    tallystick sql "SELECT * FROM charges ORDER BY cost_usd DESC LIMIT 3"
    tallystick sql "SELECT sum(calls) FROM charges WHERE customer = {name:String}" -p name=acme --json
    """
    if query == "-":
        query = sys.stdin.read()
    if not query.strip():
        raise click.UsageError("the query is empty")
    values = named(params)
    with connect(settings) as ledger:
        result = ledger.sql(query, values)
    emit(form, result.dicts(), [_field(column) for column in result.columns])
    if form == "table":
        rows = len(result.rows)
        click.echo(f"{rows:,} {'row' if rows == 1 else 'rows'} in {result.elapsed_ms:,.0f} ms", err=True)


def named(params: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` of the command line as a mapping. Raises click.UsageError for anything else."""
    values = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{param!r} isn't NAME=VALUE")
        values[name] = value
    return values


def _field(column: Column) -> Field:
    kind = column.type.removeprefix("Nullable(")
    return Field(column.name, column.name, _shown, right=kind.startswith(("UInt", "Int", "Float", "Decimal")))


def _shown(value: object) -> str:
    return "NULL" if value is None else str(value) if value != "" else text(value)
