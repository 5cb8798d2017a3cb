"""`tallystick estimate`: what traffic that doesn't exist yet would cost."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, formatted, setting_option
from tallystick.cli.output import Field, emit, percent, text
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.attribution.prices import PriceBook
    from tallystick.estimate.traffic import Traffic
    from tallystick.estimating import Rates

_PARTS: Final = ("input", "cache_read", "cache_write", "output", "request")


class Number(click.ParamType[Decimal]):
    """Between two values, both allowed, exactly as written; `least` isn't allowed itself where `above`."""

    def __init__(self, name: str, least: int = 0, most: Decimal | None = None, *, above: bool = False) -> None:
        self.name, self._least, self._most, self._above = name, least, most, above

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        text = str(value)
        try:
            number = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except InvalidOperation:
            self.fail(f"{text!r} is no number", param, ctx)
        if not number.is_finite() or number < self._least or (self._above and number == self._least):
            self.fail(f"{text} isn't {'more than' if self._above else 'at least'} {self._least}", param, ctx)
        if number > (self._most or Decimal(10**15)):
            self.fail(f"{text} is more than {self._most or Decimal(10**15):f}", param, ctx)
        return number


_COUNT: Final = Number("NUMBER", above=True)
_SHARE: Final = Number("SHARE", most=Decimal(1))


@click.command()
@click.option("--users", type=_COUNT, required=True)
@click.option("--calls-per-user-day", type=_COUNT, required=True, help="Mean over all days of a month.")
@click.option("--prompt", type=_COUNT, required=True, help="Tokens of a call's whole input: instructions, history, documents.")
@click.option("--completion", type=_COUNT, required=True, help="Tokens of an answer, reasoning among them.")
@click.option(
    "--cache-share", type=_SHARE, default="0", show_default=True, help="Of the prompt, what is read from the provider's cache."
)
@click.option(
    "--cache-write-share",
    type=_SHARE,
    default="1",
    show_default=True,
    help="Of the rest, what is written to it, where that costs.",
)
@click.option("--models", required=True, metavar="MODELS", help="PROVIDER/MODEL,… as `tallystick prices list` has them.")
@click.option("--engine", "engines", multiple=True, metavar="RUN", help="A run of `tallystick probe`, too; repeatable.")
@click.option(
    "--usd-per-hour", type=Number("USD"), help="What an hour of the engine costs, instead of what its probe's file says."
)
@click.option(
    "--peak", type=Number("FACTOR", 1), default="3", show_default=True, help="Of an own engine: the busiest time over the mean."
)
@click.option(
    "--headroom",
    type=Number("SHARE", most=Decimal(1), above=True),
    default="0.8",
    show_default=True,
    help="Of its capacity, what is planned with.",
)
@click.option(
    "--growth", type=Number("SHARE", -1), default="0", show_default=True, help="Of users, from one month to the next: 0.1 or 10%."
)
@click.option("--months", type=click.IntRange(1, 120), default=12, show_default=True, help="That growth is shown for.")
@click.option(
    "--swing",
    type=Number("SHARE", most=Decimal(1), above=True),
    default="50%",
    show_default=True,
    help="By which each input is changed.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots to this file, too.")
@setting_option("config")
@setting_option("data")
@formatted
def estimate(
    *, users: Decimal, calls_per_user_day: Decimal, prompt: Decimal, completion: Decimal, cache_share: Decimal, cache_write_share: Decimal,
    models: str, engines: Sequence[str], usd_per_hour: Decimal | None, peak: Decimal, headroom: Decimal, growth: Decimal, months: int,
    swing: Decimal, html: Path | None, config: Path | None, data: Path | None, form: Form,
) -> None:  # fmt: skip
    """What traffic would cost a month, by model, and which of what was assumed it hangs on.

    Needs no server: prices are the public list's, under those of --config. Every call is taken to be the average one. What has no price is said.

    \b
    tallystick estimate --users 1000 --calls-per-user-day 20 --prompt 1200 --completion 300 --models openai/gpt-5-mini
    tallystick estimate --users 1000 --calls-per-user-day 20 --prompt 1200 --completion 300 --cache-share 0.6 \\
        --models openai/gpt-5-mini,anthropic/claude-haiku-4-5 --growth 10% --html estimate.html
    tallystick estimate --users 1000 --calls-per-user-day 20 --prompt 1200 --completion 300 --models openai/gpt-5-mini \\
        --engine llamacpp/Q4_0 --usd-per-hour 2.50 --json
    """
    from tallystick.estimate.models import book_of
    from tallystick.estimate.traffic import Traffic

    settings = Settings.load(config=config, data=data)
    traffic = Traffic(users, calls_per_user_day, prompt, completion, cache_share, cache_write_share)
    count = months if growth else 1
    named = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    reckon = partial(_row, traffic, growth=growth, months=count, swing=swing)
    book = book_of(settings.config)
    rows = [_api(reckon, name, traffic, book) for name in named]
    rows += [
        row
        for run in engines
        for row in _own(reckon, run, traffic, settings.data, peak=peak, headroom=headroom, usd_per_hour=usd_per_hour)
    ]
    priced = sorted((row for row in rows if row["usd_per_month"] is not None), key=lambda row: row["usd_per_month"])
    if not priced:
        raise Failure(
            "; ".join(f"{row['model']}: {row['note']}" for row in rows) or "no model is named", "nothing is left to estimate"
        )
    rows = priced + [row for row in rows if row["usd_per_month"] is None]
    if html is not None:
        from tallystick.estimate.page import estimate_page
        from tallystick.probes.report.rendering import write_page

        write_page(
            html, estimate_page(priced, [_assumed(traffic)], [f"{row['model']}: {row['note']}" for row in rows if row["note"]])
        )
    if form == "table":
        _show(traffic, rows, priced)
    else:
        emit(form, rows, [])


def _row(
    traffic: "Traffic", cost: Callable[["Traffic"], Decimal], *, growth: Decimal, months: int, swing: Decimal
) -> dict[str, Any]:
    from tallystick.estimate import sensitivity

    return {
        "usd_per_month": cost(traffic),
        "usd_per_call": cost(traffic) / traffic.calls_per_month,
        "months": list(sensitivity.months(cost, traffic, growth, months)),
        "sensitivity": [one._asdict() for one in sensitivity.tornado(traffic, cost, swing)],
    }


def _api(reckon: Callable[..., dict[str, Any]], name: str, traffic: "Traffic", book: "PriceBook") -> dict[str, Any]:
    from tallystick.estimate.models import meant, rates_of
    from tallystick.estimate.traffic import bill, left_out

    now = datetime.now(UTC)
    rates: Rates | None = rates_of(name, book, now)
    whole = {"model": name, "calls_per_month": traffic.calls_per_month, "tokens_per_month": traffic.tokens_per_month}
    if rates is None:
        empty = dict.fromkeys(("usd_per_month", "usd_per_call", *(f"{part}_usd_per_month" for part in _PARTS)))
        return {**whole, **empty, "price_id": "", "note": f"no price is known: {meant(name)}", "months": [], "sensitivity": []}
    known = rates
    parts = bill(traffic, known).by_bucket
    return {
        **whole,
        **reckon(lambda changed: bill(changed, known).usd_per_month),
        **{f"{part}_usd_per_month": parts[part] * traffic.calls_per_month for part in _PARTS},
        "price_id": known.price_id,
        "note": "; ".join(left_out(traffic, known)),
    }


def _own(
    reckon: Callable[..., dict[str, Any]], run: str, traffic: "Traffic", data: Path, *, usd_per_hour: Decimal | None, peak: Decimal, headroom: Decimal
) -> list[dict[str, Any]]:  # fmt: skip
    from tallystick.cli.probe.finding import found_runs
    from tallystick.cli.probe.price import Terms
    from tallystick.estimate.own_engines import Own

    rows = []
    for one in found_runs(data, [run]):
        own = Own(Terms(usd_per_hour, None).price(one), peak, headroom)
        fleet = own.fleet(traffic)
        rows.append(
            {
                "model": f"own {one.info.entry}",
                "calls_per_month": traffic.calls_per_month,
                "tokens_per_month": traffic.tokens_per_month,
                **reckon(own.usd_per_month()),
                **dict.fromkeys(f"{part}_usd_per_month" for part in _PARTS),
                "price_id": "",
                "note": f"{fleet.engines:,} engines, {fleet.utilisation:.1%} used, at {own.price.hour.usd_per_hour.normalize():f} USD/h each;"
                f" the busiest time taken for {peak:f} times the mean",
            }
        )
    return rows


def _show(traffic: "Traffic", rows: Sequence[Mapping[str, Any]], priced: Sequence[Mapping[str, Any]]) -> None:
    from tallystick.estimate.bars import bar, span

    click.echo(_assumed(traffic))
    most = max(row["usd_per_month"] for row in priced)
    shown = [{**row, "bar": "" if row["usd_per_month"] is None else bar(row["usd_per_month"], most)} for row in rows]
    emit("table", shown, _COSTS)
    if len(priced[0]["months"]) > 1:
        click.echo("As users grow, USD of each month")
        months = [
            {"month": str(at + 1), **{row["model"]: row["months"][at] for row in priced}}
            for at in range(len(priced[0]["months"]))
        ]
        emit(
            "table",
            months,
            [Field("month", "month", text), *(Field(row["model"], row["model"], _usd, right=True) for row in priced)],
        )
    for row in priced:
        click.echo(f"What {row['model']} hangs on")
        swings = row["sensitivity"]
        furthest = max(max(one["usd_low"], one["usd_high"]) for one in swings)
        lines = [
            {**one, "bar": span(one["usd_low"], one["usd_high"], row["usd_per_month"], furthest), "to": f"{_plain(one['low'])} to {_plain(one['high'])}"}
            for one in swings
        ]  # fmt: skip
        emit("table", lines, _SWINGS)
    for row in rows:
        if row["note"]:
            click.echo(f"{row['model']}: {row['note']}", err=True)


def _assumed(traffic: "Traffic") -> str:
    return (
        f"{traffic.users.normalize():f} users × {traffic.calls_per_user_day.normalize():f} calls a day ="
        f" {traffic.calls_per_month:,.0f} calls a month; each {traffic.prompt.normalize():f} tokens in"
        f" ({percent(traffic.cache_share)} from the cache), {traffic.completion.normalize():f} out"
    )


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _usd(amount: Decimal | None) -> str:
    return "unpriced" if amount is None else f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.6f}"


def _part(amount: Decimal | None) -> str:
    return "–" if amount is None else _usd(amount)


_COSTS: Final = (
    Field("model", "model", text),
    Field("usd_per_month", "USD a month", _usd, right=True),
    Field("usd_per_call", "USD a call", _usd, right=True),
    Field("input_usd_per_month", "input", _part, right=True),
    Field("cache_read_usd_per_month", "cache read", _part, right=True),
    Field("cache_write_usd_per_month", "cache write", _part, right=True),
    Field("output_usd_per_month", "output", _part, right=True),
    Field("bar", "", str),
)
_SWINGS: Final = (
    Field("input", "input", text),
    Field("to", "from … to", text),
    Field("usd_low", "USD at the lower", _usd, right=True),
    Field("usd_high", "USD at the higher", _usd, right=True),
    Field("bar", "", str),
)
