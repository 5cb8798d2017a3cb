"""`tallystick statement`: what a customer or team cost in a period, to show or to charge."""

import re
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import connected
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.attribution.showback import Statement


@click.command()
@click.option("--for", "where", multiple=True, metavar="DIMENSION=VALUE", help="Whom it is for; repeatable; all if not given.")
@click.option("--each", metavar="DIMENSION", help="A statement for each of its values, as files of the directory -o.")
@click.option("--period", required=True, metavar="PERIOD", help="A month (2026-10), week (2026-W42) or day (2026-10-05) of UTC.")
@click.option(
    "--format", "form", type=click.Choice(["html", "csv", "json"]), default="html", show_default=True, help="Of the files."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file, with --each the directory; else the standard output."
)
@click.option("--as-of", metavar="TIME", help="As it was known at this time (UTC if no zone); now if not given.")
@click.option("--markup", default="0", metavar="PERCENT", help="On everything.")
@click.option("--currency", default="USD", show_default=True, help="Three letters; any but USD needs --rate.")
@click.option("--rate", metavar="NUMBER", help="What 1 USD costs in the currency.")
@connected
def statement(
    *,
    where: Sequence[str],
    each: str | None,
    period: str,
    form: str,
    output: Path | None,
    as_of: str | None,
    markup: str,
    currency: str,
    rate: str | None,
    settings: Settings,
) -> None:
    """Write statements: charges and corrections with their reasons, by feature, model and day, coverage, and the month before.

    A statement adds up to the cent: `rounding` holds what rounded lines leave over. Its number stands for its content; with
    --as-of the same statement can be written again at any time.

    \b
    tallystick statement --for customer=acme --period 2026-10 -o acme.html
    tallystick statement --each team --period 2026-10 --format csv -o statements/
    tallystick statement --for customer=acme --period 2026-10 --markup 15 --currency EUR --rate 0.92 --as-of 2026-11-03
    """
    from tallystick.attribution.showback import asked, statements, terms
    from tallystick.attribution.showback import statement as make
    from tallystick.attribution.showback_files import WRITERS
    from tallystick.attribution.spend import check_dimension

    if each is not None and output is None:
        raise click.UsageError("--each needs a directory: -o DIR")
    try:
        if each is not None:
            check_dimension(each)
        if re.fullmatch("[A-Z]{3}", currency) is None:
            raise click.BadParameter("three capital letters such as EUR", param_hint="--currency")
        wanted = asked(where, period, as_of, time.time_ns())
        charged = terms(
            _number(markup, "--markup"), currency, None if rate is None else _number(rate, "--rate", above=Decimal(0))
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    write = WRITERS[form]
    with connect(settings) as ledger:
        if each is None:
            text = write(make(lambda sql, params: ledger.sql(sql, params).dicts(), wanted, charged))
            if output is None:
                click.echo(text, nl=False)
            else:
                output.write_text(text, encoding="utf-8")
            return
        assert output is not None
        output.mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        for one in statements(lambda sql, params: ledger.sql(sql, params).dicts(), each, wanted, charged):
            name = _file_name(one, each, form, written)
            (output / name).write_text(write(one), encoding="utf-8")
    if not written:
        raise Failure(f"nothing by {each} in {period}", "`tallystick costs --by month` shows when there is")
    click.echo(f"{len(written):,} statements in {output}", err=True)


def _file_name(one: "Statement", each: str, form: str, taken: set[str]) -> str:
    """A value as the name of a file of its own, also where case doesn't count. `taken` gets it."""
    value = one.who[each]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", value).strip("._")[:80] or "none"
    if name != (value or "none") or name.lower() in taken:
        name += f"-{sha256(value.encode(errors='replace')).hexdigest()[:8]}"
    taken.add(name.lower())
    return f"{name}.{form}"


def _number(text: str, option: str, above: Decimal | None = None) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) > 1_000_000 or (above is not None and number <= above):
        raise click.BadParameter(f"{text!r} is no number for it", param_hint=option)
    return number
