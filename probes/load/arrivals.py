"""When requests are sent: one schedule, made before the first of them, which no answer can slow down (open loop)."""

from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Final, Literal

_SECOND: Final = 1_000_000_000


def stream(seed: int, stage: int, of: str) -> Random:
    """Randomness of its own for each stage and purpose: workers or stages that share one repeat each other's arrivals."""
    return Random(f"{seed}/{stage}/{of}")  # noqa: S311 - to be repeated, not to be secret


def arrivals(kind: Literal["constant", "poisson"], rate: float, count: int, seed: int, stage: int = 0) -> tuple[int, ...]:
    """Nanoseconds after the stage's start, ascending, `rate` a second on average.

    poisson: gaps are exponential with mean 1/rate, the first before the first request; they aren't scaled to end on time, which would make
    them dependent on each other, so that n requests take n/rate seconds give or take sqrt(n)/rate.
    """
    if kind == "constant":
        return tuple(int(at / rate * _SECOND) for at in range(count))
    random = stream(seed, stage, "arrivals")
    return tuple(int(at * _SECOND) for at in accumulate(random.expovariate(rate) for _ in range(count)))


def replayed(times_ns: Sequence[int], rate: float | None) -> tuple[int, ...]:
    """Ascending times of a trace from its first, as they were, or stretched so that (n - 1) / (last - first) is `rate` a second.

    Bursts and lulls keep their proportions.
    """
    if not times_ns:
        return ()
    first, span = times_ns[0], times_ns[-1] - times_ns[0]
    if rate is None or not span:
        return tuple(at - first for at in times_ns)
    stretch = (len(times_ns) - 1) / rate * _SECOND / span
    return tuple(int((at - first) * stretch) for at in times_ns)
