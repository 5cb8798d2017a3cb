"""`tallystick prices`: what tokens cost, on whose authority, and what has no price."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tallystick import attribution
from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted, setting_option
from tallystick.cli.output import Field, count, emit, text
from tallystick.cli.when import moment_option
from tallystick.client import Refused
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.attribution.prices import PriceBook
    from tallystick.attribution.prices_compile import Price
    from tallystick.attribution.prices_file import UserPrices

_BUCKETS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
"""Buckets that a list shows; `prices show` has all."""


@click.group()
def prices() -> None:
    """Prices: genai-prices, and yours of --config before them.

    \b
    tallystick prices missing              what the ledger holds that has no price
    tallystick prices list claude
    tallystick prices check prices.yaml
    """


@prices.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@setting_option("config")
@formatted
def list_(*, words: tuple[str, ...], config: Path | None, form: Form) -> None:
    """List today's prices of all models, or of those whose provider/model holds every WORD. USD for a million tokens.

    \b
    tallystick prices list
    tallystick prices list anthropic sonnet --json
    """
    rows = []
    for row in _book(config).listing(datetime.now(UTC)):
        name = row.price_key
        if all(word.lower() in name.lower() for word in words):
            rates = row.usd_per_million(row.price_ids[0])
            buckets = {bucket: rates[bucket] for bucket in _BUCKETS}
            rows.append({"model": name, **buckets, "since": row.valid_from, "price_id": row.price_ids[0]})
    if not rows and words:
        raise Failure(f"no priced model is called {' '.join(words)}", "state its price in a file, see docs/prices.md")
    fields = [Field("model", "model", text), *(Field(bucket, bucket.replace("_", " "), _rate, right=True) for bucket in _BUCKETS)]
    emit(form, rows, [*fields, Field("price_id", "price id", text)])


@prices.command()
@click.argument("price_id")
@setting_option("config")
@formatted
@connected
def show(*, price_id: str, config: Path | None, form: Form, settings: Settings) -> None:
    """Explain a price id, as it stands in `charges`: every rate, since when, and where it comes from.

    Looks in the installed prices and those of --config, then in the ledger, which keeps every price that it ever charged by.

    \b
    tallystick sql "SELECT DISTINCT price_id FROM charges"
    tallystick prices show "$(tallystick prices list gpt-5-mini --json | jq -r '.[0].price_id')"
    tallystick prices show "genai-prices@0.2.3,openai,gpt-5,from=always" --data DIR
    """
    row = _book(config).find(price_id)
    recorded = None if row else _recorded(price_id, settings)
    row = row or (None if recorded else _measured(price_id, settings))
    if recorded:
        facts = recorded
    elif row is None:
        hint = "it may come from another ledger or another --config; a tenant's key is told of its own charges only"
        raise Failure(f"neither the installed prices nor the ledger hold {price_id!r}", hint)
    else:
        rates = row.usd_per_million(price_id)
        facts = {"price_id": price_id, "model": row.price_key, "valid_from": row.valid_from}
        facts |= {f"{bucket}_usd_per_million": rate for bucket, rate in rates.items() if bucket != "request"}
        facts |= {"request_usd": rates["request"], "source": row.source, "url": row.url, "note": row.note}
    if form == "table":
        pairs = [{"what": name.replace("_", " "), "value": value} for name, value in facts.items() if value != ""]
        emit(form, pairs, [Field("what", "", text), Field("value", "", _fact)])
    else:
        emit(form, [facts], [])


@prices.command()
@moment_option("--since", default="30d")
@formatted
@connected
def missing(*, since: int, form: Form, settings: Settings) -> None:
    """List models in the ledger without a cost, most tokens first, and why: no price, or usage that nobody reported.

    \b
    tallystick prices missing
    tallystick prices missing --since 7d --json
    """
    with connect(settings) as ledger:
        rows = ledger.sql(_query("unpriced"), {"since": since}).dicts()
    fields = [
        Field("provider", "provider", text),
        Field("model", "model", text),
        Field("why", "why", text),
        Field("calls", "calls", count, right=True),
        Field("tokens", "tokens", count, right=True),
        Field("last_seen", "last seen", _second),
    ]
    emit(form, rows, fields)
    if form == "table":
        found = (
            "every call has a cost"
            if not rows
            else "state prices in a file (docs/prices.md), check it with `tallystick prices check`"
        )
        click.echo(found, err=True)


@prices.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(*, file: Path) -> None:
    """Check a file of prices, as --config takes it, and say how many it states; every mistake is listed with its line.

    \b
    tallystick prices check prices.yaml
    """
    stated = _stated(file)
    click.echo(f"{file}: fine, {len(stated.models):,} models priced")


def _book(config: Path | None) -> "PriceBook":
    from tallystick.attribution.prices import PriceBook

    file = Settings.load(config=config).config
    return PriceBook(_stated(file) if file else None)


def _stated(file: Path) -> "UserPrices":
    from tallystick.attribution.prices_file import PriceFileError, load_prices_file

    try:
        return load_prices_file(file)
    except PriceFileError as error:
        raise Failure(str(error)) from None


def _recorded(price_id: str, settings: Settings) -> dict[str, Any] | None:
    try:
        with connect(settings) as ledger:
            found = ledger.price(price_id)
    except Failure as missing:
        raise Failure(f"the installed prices hold no {price_id!r}, and {missing.message}", missing.hint) from None
    if found is None:
        return None
    facts: dict[str, Any] = {name: Decimal(value) if "usd" in name else value for name, value in found.items() if name != "book"}
    return facts | {"valid_from": datetime.fromisoformat(found["valid_from"])}


def _measured(price_id: str, settings: Settings) -> "Price | None":
    """Of the prices that were entered, one that nothing was charged by yet."""
    from tallystick.attribution.prices import PriceBook
    from tallystick.attribution.prices_file import MeasuredPrice, UserPrices

    with connect(settings) as ledger:
        try:
            entered = ledger.measured_prices()
        except Refused:
            # They are the operators'.
            return None
    return PriceBook(UserPrices().with_measured(map(MeasuredPrice.entered, entered))).find(price_id)


def _query(name: str) -> str:
    return (Path(attribution.__file__).parent / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def _rate(value: Decimal) -> str:
    return f"{value:f}"


def _fact(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _second(value: object) -> str:
    return str(value)[:19]
