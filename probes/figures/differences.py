"""The difference of two figures that were measured apart, with an interval: Zou and Donner's (2008), from the figures' own.

    low  = d - sqrt((b - b_low)^2 + (a_high - a)^2)        d = b - a
    high = d + sqrt((b_high - b)^2 + (a - a_low)^2)

It keeps their asymmetry, so it is good for percentiles of skewed latencies, is Newcombe's for shares, and needs nothing but the figures as they
are stored. It covers 95 % where both intervals do, and says what those say: of latencies, how requests of such a stage vary; of rates, how
stretches of a stage do. That a machine is faster on some days, it can't know: measure again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from statistics import NormalDist
from typing import Final

from tallystick.probes.figures.percentiles import CONFIDENCE, Figure

ALPHA: Final = 1 - CONFIDENCE
_NORMAL: Final = NormalDist()
_Z: Final = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Difference:
    """Of `now` - `base`, in the figure's unit, with its 95 % interval. p: that there is none, two-sided; `shown` allows for how many were made."""

    name: str
    unit: str
    base: float
    now: float
    value: float
    low: float
    high: float
    n_base: int
    n_now: int
    p: float
    shown: bool

    @classmethod
    def of(
        cls, name: str, unit: str, base: float, now: float, *, down: float, up: float, n_base: int, n_now: int
    ) -> "Difference":
        """With an interval that reaches so far down and up. p: as if normal, by the side that points to no difference."""
        value = now - base
        towards_none = down if value > 0 else up
        z = abs(value) / towards_none * _Z if towards_none else (inf if value else 0.0)
        p = 2 * (1 - _NORMAL.cdf(z))
        return cls(name, unit, base, now, value, value - down, value + up, n_base, n_now, p, bool(value) and p <= ALPHA)

    def named(self, name: str) -> "Difference":
        """The same, of another name."""
        return replace(self, name=name)

    @property
    def percent(self) -> float | None:
        """Of the base; None where that is 0."""
        return 100 * self.value / self.base if self.base else None


def difference(base: Figure, now: Figure) -> Difference | None:
    """None: one of them has no value or no interval."""
    if base.value is None or base.low is None or base.high is None or now.value is None or now.low is None or now.high is None:
        return None
    down = sqrt((now.value - now.low) ** 2 + (base.high - base.value) ** 2)
    up = sqrt((now.high - now.value) ** 2 + (base.value - base.low) ** 2)
    return Difference.of(now.name, now.unit, base.value, now.value, down=down, up=up, n_base=base.n, n_now=now.n)


def allowed_for(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """Holm (1979): of many differences, `shown` are those that keep the chance of any false one at 5 %. Intervals stay as they are."""
    ranked = sorted(range(len(differences)), key=lambda index: differences[index].p)
    shown = [False] * len(differences)
    for rank, index in enumerate(ranked):
        one = differences[index]
        if one.p > ALPHA / (len(differences) - rank) or not one.value:
            break
        shown[index] = True
    return tuple(replace(one, shown=is_shown) for one, is_shown in zip(differences, shown, strict=True))
