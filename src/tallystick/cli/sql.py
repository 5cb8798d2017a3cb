"""`tallystick sql`: any question."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

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
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["table", "json", "csv", "ndjson", "arrow", "parquet"]),
    help="arrow is an IPC stream; arrow and parquet need -o or a pipe.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer to this file.")
@formatted
@connected
def sql(  # noqa: PLR0917
    query: str, params: Sequence[str], file_format: str | None, output: Path | None, form: Form, settings: Settings
) -> None:
    """Ask the ledger anything, in ClickHouse's SQL. The view is `charges`; QUERY may be - to read it from the standard input.

    \b
    tallystick sql "SELECT feature, sum(cost_usd) FROM charges GROUP BY feature ORDER BY 2 DESC"
    tallystick sql "SELECT * FROM charges ORDER BY cost_usd DESC LIMIT 3"
    tallystick sql "SELECT sum(calls) FROM charges WHERE customer = {name:String}" -p name=acme --json
    tallystick sql "SELECT * FROM charges WHERE started_at >= '2026-10-01'" --format parquet -o october.parquet
    """
    if query == "-":
        query = sys.stdin.read()
    if not query.strip():
        raise click.UsageError("the query is empty")
    values = named(params)
    if file_format is not None and form not in ("table", file_format):
        raise click.UsageError(f"--{form} and --format {file_format} exclude each other")
    file_format = file_format or form
    if output is not None or file_format in ("ndjson", "arrow", "parquet"):
        _write(settings, query, values, file_format, output)
        return
    form = "json" if file_format == "json" else "csv" if file_format == "csv" else "table"
    with connect(settings) as ledger:
        result = ledger.sql(query, values)
    emit(form, result.dicts(), [_field(column) for column in result.columns])
    if form == "table":
        rows = len(result.rows)
        click.echo(f"{rows:,} {'row' if rows == 1 else 'rows'} in {result.elapsed_ms:,.0f} ms", err=True)


def _write(settings: Settings, query: str, values: Mapping[str, str], file_format: str, output: Path | None) -> None:
    """The answer to the standard output, or a file that is there whole or not at all."""
    if file_format in ("table", "json"):
        raise click.UsageError("-o needs --format csv, ndjson, arrow or parquet")
    if output is None and file_format != "ndjson" and sys.stdout.isatty():
        raise click.UsageError(f"{file_format} isn't for a terminal: name a file with -o, or pipe it")
    with connect(settings) as ledger:
        content = ledger.sql_file(query, values, format=file_format)
    if output is None:
        sys.stdout.buffer.write(content)
        return
    part = output.with_name(f".{output.name}.part")
    try:
        part.write_bytes(content)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{len(content):,} bytes in {output}", err=True)


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
