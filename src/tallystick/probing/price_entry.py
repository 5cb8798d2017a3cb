"""A measured price on its way to the ledger: the share of time for which its engine really worked, and what is entered."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from tallystick.attribution.spend import Ask, period
from tallystick.attribution.sql_files import statement
from tallystick.probes.money.measured_price import BUCKETS, Bucket, MeasuredPrice, NoPrice, observed_utilisation

_HOUR_NS = 3600 * 10**9


def served_tokens(ask: Ask, model: str, since_ns: int, until_ns: int) -> dict[Bucket, int]:
    """Tokens of a model's calls in the ledger, by an engine's buckets: what was written to a cache has been computed as any other input."""
    params: dict[str, Any] = {"model": model}
    within = period(since_ns, until_ns, params)
    (row,) = ask(statement("served_tokens", "probing").replace("/*conditions*/", within), params)
    return {"input": int(row["input"]), "cache_read": int(row["cache_read"]), "output": int(row["output"])}


def used_as_served(
    price: MeasuredPrice, tokens: Mapping[Bucket, int], since_ns: int, until_ns: int, engines: int
) -> MeasuredPrice:
    """The price at the utilisation that so many tokens in that time come to, idle hours among it. Raises NoPrice."""
    hours = Decimal(until_ns - since_ns) / _HOUR_NS
    used = observed_utilisation(price, tokens, hours, engines)
    if not any(tokens.values()):
        raise NoPrice("the ledger has no calls of this model in that time: `--model` names it as its spans do")
    if used > 1:
        raise NoPrice(f"the ledger's calls would take {used * engines:.1f} such engines: say with --engines how many there are")
    return price.at(used, f"ledger, {hours:.0f} h")


def entry_of(price: MeasuredPrice, run: str, provider: str, model: str, valid_from: datetime) -> dict[str, Any]:
    """PriceEntry of server/measured_prices.py, as JSON has it."""
    return {
        "provider": provider, "model": model, "valid_from": valid_from.isoformat(), "run": run,
        **{bucket: f"{price.per_million[bucket]:f}" for bucket in BUCKETS}, "definition": price.definition,
    }  # fmt: skip
