"""What measured runs come to in money, and how they stand against APIs on the same calls."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tallystick.estimate.models import book_of
from tallystick.probes.config import BreakEven
from tallystick.probes.load.traffic_mix import Mix
from tallystick.probes.loading import LoadedRun
from tallystick.probes.money.breakeven import breakeven
from tallystick.probes.report.money import Money, priced
from tallystick.probing.api_prices import api_models


def paid(runs: Sequence[LoadedRun], asked: BreakEven | None, mix: Mix | None, prices: Path | None, now: datetime) -> Money:
    """asked, mix: which API models on which calls; None: prices alone. prices: the user's file. Raises PriceFileError, OSError."""
    money = priced(runs)
    if asked is None or mix is None:
        return money
    models = api_models(asked.against, book_of(prices), now, mix.calls)
    stand = {
        run: breakeven(mix.calls, price, models, counted=mix.counted, period_ns=(mix.since_ns, mix.until_ns))
        for run, price in money.prices.items()
        if price.hour.usd_per_hour
    }
    return replace(money, breakevens=stand)
