"""What a verdict hangs on: the same comparison with one figure changed, and the change at which the verdict turns. Pure."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from tallystick.probes.money.fleet import Need, fleet
from tallystick.probes.money.hourly_cost import EXACT

_FACTORS: Final = (Decimal("0.5"), Decimal("0.8"), Decimal("1.25"), Decimal(2))
_SHARES: Final = (Decimal(0), Decimal("0.5"), Decimal("0.9"))


class Sides(NamedTuple):
    """engine_usd: of one engine and month. api_usd: of the month's calls."""

    engine_usd: Decimal
    need: Need
    api_usd: Decimal

    def of_volume(self, factor: Decimal) -> "Sides":
        """At so many times the work."""
        return self._replace(need=self.need._replace(busy_engines=self.need.busy_engines * factor))

    @property
    def own_usd(self) -> Decimal:
        """Of the fleet and month."""
        return fleet(self.need).engines * self.engine_usd

    @property
    def own_wins(self) -> bool:
        """At the same price the API wins: it is less work."""
        return self.own_usd < self.api_usd


class Case(NamedTuple):
    """input: `API price`, `cost of an hour`, `capacity`, `volume`, `cache share`. changed: how, in words. flips: the verdict is another.

    turns_at: of all cases of an input the factor at which the verdict turns, None: at none.
    """

    input: str
    changed: str
    own_usd: Decimal
    api_usd: Decimal
    flips: bool
    turns_at: Decimal | None


def cases(now: Sides, with_cache: Callable[[Decimal], Sides]) -> tuple[Case, ...]:
    """with_cache: how it is with such a share of the input from a cache."""
    found: list[Case] = []
    changes: tuple[tuple[str, Callable[[Decimal], Sides], Decimal | None], ...] = (
        ("API price", lambda f: now._replace(api_usd=now.api_usd * f), _ratio(now.own_usd, now.api_usd)),
        ("cost of an hour", lambda f: now._replace(engine_usd=now.engine_usd * f), _ratio(now.api_usd, now.own_usd)),
        ("capacity", lambda f: now.of_volume(EXACT.divide(Decimal(1), f)), _capacity_turns(now)),
        (
            "volume",
            lambda f: now.of_volume(f)._replace(api_usd=now.api_usd * f),
            _volume_turns(now),
        ),
    )
    for name, change, turns_at in changes:
        for factor in _FACTORS:
            then = change(factor)
            found.append(Case(name, f"× {factor:f}", then.own_usd, then.api_usd, then.own_wins != now.own_wins, turns_at))
    for share in _SHARES:
        then = with_cache(share)
        found.append(Case("cache share", f"{share:.0%}", then.own_usd, then.api_usd, then.own_wins != now.own_wins, None))
    return tuple(found)


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    return EXACT.divide(part, whole) if whole else None


def _capacity_turns(now: Sides) -> Decimal | None:
    """By which the capacity is to be multiplied so that the fleet is of as many engines as the API's bill pays."""
    paid = int(now.api_usd // now.engine_usd) if now.engine_usd else 0
    if paid * now.engine_usd == now.api_usd:
        paid -= 1
    engines = now.need.engines
    return EXACT.divide(engines, Decimal(paid)) if paid > 0 and engines else None


def _volume_turns(now: Sides) -> Decimal | None:
    """n engines are worth it from the volume on at which the API's bill is theirs, and until the volume at which one more is needed."""
    engines = now.need.engines
    if not (now.api_usd and engines and now.engine_usd):
        return None
    present = fleet(now.need).engines
    pays = EXACT.divide(now.engine_usd, now.api_usd)
    if now.own_wins:
        for n in range(present, 0, -1):
            if n * pays > EXACT.divide(Decimal(n - 1), engines):
                return n * pays
        return None
    # All steps are alike: where the present one's end is reached too early, so is every other's.
    return present * pays if pays * engines <= 1 else None
