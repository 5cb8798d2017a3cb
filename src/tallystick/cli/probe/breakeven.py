"""`tallystick probe breakeven`: whether own engines are cheaper than an API, for real calls."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted, setting_option
from tallystick.cli.output import Field, count, emit, percent, text, tokens
from tallystick.cli.probe.calls import real_calls
from tallystick.cli.probe.finding import found_runs
from tallystick.cli.probe.price import Terms, ratio_option, usd_per_hour_option
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.load.traffic_mix import Mix
    from tallystick.probes.money.breakeven import Against, BreakEven

_MILLION: Final = 1_000_000
_STEPS: Final = 12
"""Rows of the staircase that a table shows."""


@click.command()
@click.option("--feature", help="Calls of this feature in the ledger.")
@click.option("--where", multiple=True, metavar="DIMENSION=VALUE", help="Only such calls of the ledger; repeatable.")
@click.option("--trace", help="A trace's calls instead: a file, or azure-conversation, azure-code, mooncake.")
@click.option(
    "--since", default="30d", show_default=True, metavar="TIME", help="An age (30d, 24h, 15m) or a time (UTC if no zone)."
)
@click.option("--until", metavar="TIME", help="Before when; until now if not given.")
@click.option("--engine", "engines", multiple=True, required=True, metavar="RUN", help="A run of `tallystick probe`; repeatable.")
@click.option("--against", required=True, metavar="MODELS", help="PROVIDER/MODEL,… as `tallystick prices list` has them.")
@click.option(
    "--tokens-per-month", type=click.FloatRange(min=0, min_open=True), help="Of the same mix, instead of the calls' own volume."
)
@click.option(
    "--headroom",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Of a capacity, what is planned with.",
)
@usd_per_hour_option
@ratio_option
@setting_option("config")
@formatted
@connected
def breakeven(
    *, feature: str | None, where: Sequence[str], trace: str | None, since: str, until: str | None, engines: Sequence[str], against: str,
    tokens_per_month: float | None, headroom: float, usd_per_hour: Decimal | None, ratio: tuple[Decimal, Decimal, Decimal] | None,
    config: Path | None, form: Form, settings: Settings,
) -> None:  # fmt: skip
    """What real calls would cost on measured engines and by APIs: from which utilisation and volume on one's own are cheaper.

    An API is charged call by call, as the ledger prices calls. The fleet is of as many engines as the busiest time takes. What flips the verdict
    is said. How well the models answer isn't judged.

    \b
    tallystick probe breakeven --feature chat --engine last --against openai/gpt-5-mini,anthropic/claude-haiku-4-5
    tallystick probe breakeven --trace azure-conversation --engine last --usd-per-hour 2.50 --against openai/gpt-5-mini
    tallystick probe breakeven --where customer=acme --engine vllm/awq --against openai/gpt-5-nano --tokens-per-month 5e9 --json
    """
    settings = settings if config is None else replace(settings, config=config.absolute())
    given = _where(feature, where)
    if (trace is None) == (not given):
        raise click.UsageError("give --feature (or --where), or --trace: whose calls?")
    runs = found_runs(settings.data, engines)
    prices = {run.info.id: Terms(usd_per_hour, ratio).price(run) for run in runs}

    from tallystick.estimate.models import book_of
    from tallystick.probes.money.breakeven import breakeven as reckon
    from tallystick.probing.api_prices import api_models

    mix = _mix(trace, given, since, until, settings)
    book = book_of(settings.config)
    names = [name.strip() for name in against.split(",") if name.strip()]
    models = api_models(names, book, datetime.now(UTC), mix.calls)
    if not any(model.price for model in models):
        raise Failure("; ".join(f"{model.name}: {model.note}" for model in models), "nothing is left to compare with")
    month = None if tokens_per_month is None else Decimal(str(tokens_per_month))
    rows = []
    for run in runs:
        try:
            found = reckon(
                mix.calls, prices[run.info.id], models, counted=mix.counted, period_ns=(mix.since_ns, mix.until_ns),
                tokens_per_month=month, headroom=Decimal(str(headroom)),
            )  # fmt: skip
        except ValueError as error:
            raise Failure(f"{run.name}: {error}") from None
        rows.append({"run": run.info.id, "entry": run.info.entry, "calls": mix.source, **found.as_json()})
        if form == "table":
            _show(run.name, mix, found)
    if form != "table":
        emit(form, rows, [])


def _where(feature: str | None, where: Sequence[str]) -> dict[str, str]:
    found = {} if feature is None else {"feature": feature}
    for one in where:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{one!r} isn't DIMENSION=VALUE", param_hint="--where")
        found[name] = value
    return found


def _mix(trace: str | None, where: Mapping[str, str], since: str, until: str | None, settings: Settings) -> "Mix":
    from tallystick.probes.config import Feature

    found = real_calls(None if trace is None else Path(trace), Feature(where=dict(where), since=since, until=until), settings)
    assert found is not None
    return found


def _show(name: str, mix: "Mix", found: "BreakEven") -> None:
    demand, fleet = found.demand, found.fleet
    buckets = ", ".join(f"{bucket.replace('_', ' ')} {tokens(number)}" for bucket, number in demand.by_bucket.items())
    click.echo(f"{name} with {demand.counted:,} calls of {mix.source} in {demand.hours:,.1f} hours")
    click.echo(f"looked at {demand.calls:,} calls: {buckets}")
    click.echo(
        f"a month: {tokens(int(demand.tokens_per_month))} tokens keep {demand.busy_engines:.4g} engines busy,"
        f" {demand.peak:.2f} times as many at the peak; a fleet of {fleet.engines:,} at {found.price.hour.usd_per_hour:.4f} USD/h each,"
        f" {percent(fleet.utilisation)} used: {_usd(found.usd_per_month)} USD"
    )
    emit("table", [_row(one) for one in found.against], _AGAINST)
    for one in found.against:
        click.echo(one.verdict)
    for one in found.against:
        if one.cases:
            click.echo(f"\nWhat {one.model.name} hangs on")
            emit("table", _sensitivity(one), _CASES)
    click.echo("\nVolume, fleet, and USD a month")
    apis = [one.model.name for one in found.against if one.usd is not None]
    steps = [
        {
            "tokens": int(step.tokens_per_month),
            "engines": step.engines,
            "used": step.utilisation,
            "own": step.own_usd,
            **step.api_usd,
        }
        for step in found.staircase[:_STEPS]
    ]
    emit(
        "table",
        steps,
        [
            Field("tokens", "tokens a month", tokens, right=True),
            Field("engines", "engines", count, right=True),
            Field("used", "used", percent, right=True),
            Field("own", "own", _usd, right=True),
            *(Field(api, api, _usd, right=True) for api in apis),
        ],
    )
    rule = {"api": "an API", "own": "own engines", None: "either"}[found.rule_of_thumb]
    click.echo(f"rule of thumb (an API under 10 million tokens a month, own engines over 100 million): {rule}")
    for note in (*found.notes, *found.price.notes, *mix.notes):
        click.echo(note, err=True)


def _row(one: "Against") -> dict[str, Any]:
    return {
        "model": one.model.name,
        "per_million": one.usd_per_million,
        "month": one.usd_per_month,
        "hour": one.value_usd_per_hour,
        "from": one.utilisation,
        "volume": one.wins_from,
        "always": one.always_from,
    }


def _sensitivity(one: "Against") -> list[dict[str, Any]]:
    other = "api" if one.winner == "own" else "own"
    return [
        {
            "input": case.input,
            "changed": case.changed,
            "own": case.own_usd,
            "api": case.api_usd,
            "cheaper": other if case.flips else one.winner,
            "turns": "" if case.turns_at is None else f"× {case.turns_at:.3g}",
        }
        for case in one.cases
    ]


def _usd(amount: Decimal | None) -> str:
    return "unpriced" if amount is None else f"{amount:,.2f}" if amount >= 1 else f"{amount:.6f}"


def _share(share: Decimal | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _volume(volume: Decimal | None) -> str:
    return "never" if volume is None else tokens(int(volume))


_AGAINST: Final = (
    Field("model", "API", text),
    Field("per_million", "USD/M tokens", _usd, right=True),
    Field("month", "USD a month", _usd, right=True),
    Field("hour", "USD for an engine's hour", _usd, right=True),
    Field("from", "break-even use", _share, right=True),
    Field("volume", "own from", _volume, right=True),
    Field("always", "always from", _volume, right=True),
)
_CASES: Final = (
    Field("input", "input", text),
    Field("changed", "changed to", text),
    Field("own", "own USD", _usd, right=True),
    Field("api", "API USD", _usd, right=True),
    Field("cheaper", "cheaper", text),
    Field("turns", "verdict turns at", str, right=True),
)
