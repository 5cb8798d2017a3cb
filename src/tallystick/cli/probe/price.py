"""`tallystick probe price`: what a token of a measured engine costs, and its entry in the price book."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted, setting_option
from tallystick.cli.output import Field, emit, percent, text
from tallystick.cli.probe.finding import found_runs
from tallystick.cli.when import moment_option
from tallystick.cli.who import me
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun
    from tallystick.probes.money.measured_price import MeasuredPrice

_SHOWN: Final = Decimal("1e-6")


class Ratio(click.ParamType[tuple[Decimal, Decimal, Decimal]]):
    """`1:0.1:4`: how much a token of uncached input, cached input and output weighs."""

    name = "INPUT:CACHED:OUTPUT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Decimal, Decimal, Decimal]:
        try:
            weights = [Decimal(part) for part in str(value).split(":")]
            if len(weights) != 3 or not all(one.is_finite() and one >= 0 for one in weights) or not weights[0]:
                raise ValueError
        except (InvalidOperation, ValueError):
            self.fail(f"{value!r} isn't three numbers such as 1:0.1:4, the first of them more than 0", param, ctx)
        return weights[0], weights[1], weights[2]


@dataclass(frozen=True)
class Terms:
    """How a run's price is to be taken."""

    usd_per_hour: Decimal | None
    ratio: tuple[Decimal, Decimal, Decimal] | None

    def price(self, run: "LoadedRun") -> "MeasuredPrice":
        """At full use. Raises Failure."""
        from tallystick.probes.config import Cost
        from tallystick.probes.money.measured_price import NoPrice
        from tallystick.probes.money.run_price import price_of

        cost = run.cost if self.usd_per_hour is None else Cost(usd_per_hour=self.usd_per_hour)
        if cost is None:
            raise Failure(
                f"{run.name}: what its hardware costs isn't known",
                "say it with --usd-per-hour, or by `cost:` in the probe's file",
            )
        try:
            return price_of(run.stages, run.summaries, cost, run.target, watts=run.info.machine.get("watts"), stated=self.ratio)
        except NoPrice as error:
            raise Failure(f"{run.name} has no price: {error}") from None


class Usd(click.ParamType[Decimal]):
    """An amount that isn't negative."""

    name = "USD"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} is no amount of USD", param, ctx)
        return amount


usd_per_hour_option = click.option("--usd-per-hour", type=Usd(), help="What an hour costs, instead of the file's `cost`.")
ratio_option = click.option("--ratio", type=Ratio(), help="How much a token of each bucket weighs, instead of what was measured.")


@click.command()
@click.argument("run")
@click.option("--model", help="As spans name it; what the engine calls it, unless given.")
@click.option("--provider", default="self", show_default=True, help="What you call it.")
@click.option("--from", "valid_from", metavar="DATE", help="From when it holds (UTC if no zone); from now on, unless given.")
@click.option(
    "--utilisation", default="1", show_default=True, metavar="SHARE", help="0.4, or `ledger`: as the model's calls used it."
)
@moment_option("--since", default="30d")
@click.option("--engines", type=click.IntRange(min=1), default=1, show_default=True, help="That shared the ledger's calls.")
@usd_per_hour_option
@ratio_option
@click.option("--enter", is_flag=True, help="Enter it in the price book; calls of the model are priced by it from then on.")
@setting_option("config")
@formatted
@connected
def price(
    *, run: str, model: str | None, provider: str, valid_from: str | None, utilisation: str, since: int, engines: int,
    usd_per_hour: Decimal | None, ratio: tuple[Decimal, Decimal, Decimal] | None, enter: bool, config: Path | None, form: Form,
    settings: Settings,
) -> None:  # fmt: skip
    """What a million tokens of RUN's engine cost, by bucket, and how that comes about.

    The cost of an hour over what the engine does in an hour at the highest load within the latency target, over the utilisation: what it costs
    while idle is in the price of what it does. With --utilisation 1 nothing of idle time is in it; share that out with `tallystick allocate`.

    With --enter it becomes a dated price: below your file's, above the public list. Calls of the model are priced by it where the span names
    this provider, none, the protocol's vendor or the engine's software. `tallystick reprice` prices calls of before.

    \b
    tallystick probe price last --usd-per-hour 2.50
    tallystick probe price llamacpp/Q4_0 --utilisation 0.4 --ratio 1:0.1:4
    tallystick probe price last --model qwen3-8b --utilisation ledger --since 30d --enter
    """
    settings = settings if config is None else replace(settings, config=config.absolute())
    runs = found_runs(settings.data, [run])
    if enter and len(runs) > 1:
        names = ", ".join(one.info.id for one in runs)
        raise Failure(f"{run} is {len(runs)} runs: {names}", "enter the price of one of them")
    begins = _begins(valid_from)
    terms = Terms(usd_per_hour, ratio)
    rows = []
    for one in runs:
        named = model or (one.info.engine.model if one.info.engine else "")
        found = _used(terms.price(one), utilisation, model=named, since=since, engines=engines, settings=settings)
        row: dict[str, Any] = {
            "run": one.info.id,
            "entry": one.info.entry,
            "provider": provider,
            "model": named,
            **found.as_json(),
        }
        if enter:
            row["entered"] = _entered(found, row, begins, settings)
        rows.append(row)
    if form != "table":
        emit(form, rows, [])
        return
    for row in rows:
        _show(row)


def _begins(given: str | None) -> datetime:
    if given is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(f"{given!r} is no date: write 2026-11-01 or 2026-11-01T12:00:00Z", param_hint="--from") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _used(
    full: "MeasuredPrice", utilisation: str, *, model: str, since: int, engines: int, settings: Settings
) -> "MeasuredPrice":
    from tallystick.probes.money.measured_price import NoPrice

    try:
        if utilisation == "ledger":
            from tallystick.probing.price_entry import served_tokens, used_as_served

            until = time.time_ns()
            with connect(settings) as ledger:
                tokens = served_tokens(lambda query, params: ledger.sql(query, params).dicts(), model, since, until)
            return used_as_served(full, tokens, since, until, engines)
        share = Decimal(utilisation.removesuffix("%")) / (100 if utilisation.endswith("%") else 1)
        return full if share == 1 else full.at(share, "given")
    except InvalidOperation:
        raise click.BadParameter(
            f"{utilisation!r} is neither a share such as 0.4 nor `ledger`", param_hint="--utilisation"
        ) from None
    except NoPrice as error:
        raise Failure(str(error)) from None


def _entered(found: "MeasuredPrice", row: Mapping[str, Any], begins: datetime, settings: Settings) -> dict[str, Any]:
    from tallystick.probing.price_entry import entry_of

    if not row["model"]:
        raise Failure(f"{row['run']} doesn't tell its model", "name it with --model, as spans do")
    with connect(settings) as ledger:
        return ledger.enter_price(entry_of(found, row["run"], row["provider"], row["model"], begins), who=me())


def _show(row: Mapping[str, Any]) -> None:
    click.echo(f"{row['run']}: {row['entry']}, model {row['model'] or 'unknown'}")
    shares = "".join(f"\n  {one['name']}: {one['how']} = {_usd(one['usd_per_hour'])} USD" for one in row["hour"]["shares"])
    click.echo(f"an hour: {_usd(row['hour']['usd_per_hour'])} USD{shares}")
    capacity = row["capacity"]
    held = f", within {capacity['target']}" if capacity["target"] else ""
    click.echo(
        f"in it: {capacity['tokens_per_s'] * 3600:,.0f} tokens at {capacity['at']} ({capacity['tokens_per_s']:,.1f} a second){held}"
    )
    click.echo(f"used: {percent(Decimal(row['utilisation']))} ({row['utilisation_source']})")
    click.echo(f"by bucket: {row['split']['how']}")
    prices = [{"bucket": bucket.replace("_", " "), "usd": usd} for bucket, usd in row["usd_per_million"].items()]
    prices.append({"bucket": "all tokens of this mix", "usd": row["usd_per_million_all"]})
    if Decimal(row["utilisation"]) != 1:
        prices.append({"bucket": "all, never idle", "usd": row["usd_per_million_all_full"]})
    if row["usd_per_million_all_best"] not in (None, row["usd_per_million_all_full"]):
        prices.append({"bucket": f"all, never idle, {row['best']['at']} at any latency", "usd": row["usd_per_million_all_best"]})
    emit("table", prices, [Field("bucket", "USD a million tokens", text), Field("usd", "", _usd, right=True)])
    for note in row["notes"]:
        click.echo(note, err=True)
    if "entered" in row:
        entered = row["entered"]
        click.echo(
            f"entered: {entered['provider']}/{entered['model']} from {entered['valid_from']} on, price id {entered['price_id']}"
        )


def _usd(value: str) -> str:
    amount = Decimal(value)
    return f"{amount.quantize(_SHOWN):f}" if amount < 1 else f"{amount:,.4f}"
