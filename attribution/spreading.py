"""An amount of money shared out so that the shares add up to it, to the last decimal. Pure."""

from collections.abc import Sequence
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Final

_EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def spread(amount: Decimal, weights: Sequence[Decimal], places: int = 12) -> list[Decimal]:
    """Shares of `amount` in proportion to `weights`, each with `places` decimals, by largest remainder (Hamilton's method).

    Each is less than one unit of the last decimal from its exact share; of equal remainders the first gets the unit. A weight of 0
    gets nothing. Raises ValueError where the amount has more decimals, a weight is negative, or there is an amount and no weight.
    """
    units = amount.scaleb(places, _EXACT)
    if units != int(units):
        raise ValueError(f"{amount} has more than {places} decimals")
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    # Whole numbers from here on: the smallest exponent makes every weight one.
    finest = min((exponent for weight in weights if isinstance(exponent := weight.as_tuple().exponent, int)), default=0)
    parts = [int(weight.scaleb(-finest, _EXACT)) for weight in weights]
    whole, total = sum(parts), abs(int(units))
    if not whole:
        if total:
            raise ValueError("there is nobody to share the amount: every weight is 0")
        return [Decimal(0).scaleb(-places)] * len(parts)
    shares, remainders = zip(*(divmod(total * part, whole) for part in parts), strict=True)
    left = total - sum(shares)
    lucky = set(sorted(range(len(parts)), key=lambda at: -remainders[at])[:left])
    sign = -1 if units < 0 else 1
    return [Decimal(sign * (share + (at in lucky))).scaleb(-places, _EXACT) for at, share in enumerate(shares)]
