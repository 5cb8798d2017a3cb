"""What an hour of the hardware costs, used or not. Pure.

rented:  $/h × gpus
bought:  (purchase − residual) / (years × 8766 h), and energy: watts / 1000 × PUE × $/kWh
both:    fixed cost of a month / 730.5 h
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final, NamedTuple

from tallystick.probes.config import Cost

HOURS_A_YEAR: Final = Decimal(8766)
HOURS_A_MONTH: Final = HOURS_A_YEAR / 12

EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_UNIT: Final = Decimal("1e-12")


class Share(NamedTuple):
    """A part of the hour: `rent`, `depreciation`, `energy`, `fixed`; `how` it comes about, in figures."""

    name: str
    usd_per_hour: Decimal
    how: str


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """`notes` say what isn't in it."""

    shares: tuple[Share, ...]
    notes: tuple[str, ...] = ()

    @property
    def usd_per_hour(self) -> Decimal:
        """Of everything that is known, to 12 decimals."""
        return sum((share.usd_per_hour for share in self.shares), Decimal(0))

    @property
    def usd_per_month(self) -> Decimal:
        """Of 730.5 hours."""
        return self.usd_per_hour * HOURS_A_MONTH

    def as_json(self) -> dict[str, Any]:
        """Amounts of money are strings."""
        return {
            "usd_per_hour": f"{self.usd_per_hour:f}",
            "shares": [{**share._asdict(), "usd_per_hour": f"{share.usd_per_hour:f}"} for share in self.shares],
            "notes": list(self.notes),
        }


def hourly_cost(cost: Cost, watts: float | None = None) -> HourlyCost:
    """watts: measured while the probe ran (probes/money/power.py), of all GPUs together; what counts where the configuration says `nvml`.

    The purchase price and the watts are those of the whole machine, the rent that of one of `gpus`.
    """
    shares: list[Share] = []
    notes: list[str] = []
    if cost.usd_per_hour is not None:
        shares.append(_share("rent", cost.usd_per_hour * cost.gpus, f"{cost.gpus} × {cost.usd_per_hour:f} USD/h"))
    if cost.purchase_usd is not None:
        residual = cost.purchase_usd * cost.residual_percent / 100
        years = Decimal(str(cost.years))
        shares.append(
            _share(
                "depreciation",
                EXACT.divide(cost.purchase_usd - residual, years * HOURS_A_YEAR),
                f"({cost.purchase_usd:f} − {residual.normalize():f}) USD over {years.normalize():f} years of 8766 h",
            )
        )
        drawn = watts if cost.watts == "nvml" else cost.watts
        if drawn is None:
            said = "no NVIDIA GPU could be asked" if cost.watts == "nvml" else "`watts` isn't given"
            notes.append(f"without energy: {said}")
        else:
            power = Decimal(str(drawn))
            shares.append(
                _share(
                    "energy",
                    power / 1000 * cost.pue * cost.usd_per_kwh,
                    f"{drawn:,.0f} W × PUE {cost.pue:f} × {cost.usd_per_kwh:f} USD/kWh",
                )
            )
            if cost.watts == "nvml":
                notes.append("energy is that of the GPUs, as NVML has it: the machine around them draws more")
    if cost.fixed_usd_per_month:
        shares.append(
            _share(
                "fixed",
                EXACT.divide(cost.fixed_usd_per_month, HOURS_A_MONTH),
                f"{cost.fixed_usd_per_month:f} USD a month of 730.5 h",
            )
        )
    return HourlyCost(tuple(shares), tuple(notes))


def _share(name: str, usd_per_hour: Decimal, how: str) -> Share:
    return Share(name, usd_per_hour.quantize(_UNIT, context=EXACT), how)
