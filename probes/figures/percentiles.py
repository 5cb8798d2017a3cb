"""A figure with what stands behind it: how many values, by which method, and an interval. Nothing is shown that the values don't carry.

Percentiles are estimated as numpy, and with it vLLM bench, guidellm and aiperf do (Hyndman and Fan's type 7), so that figures can be held
beside theirs. Their 95 % intervals come from order statistics: of n independent values, the number below the true percentile is
binomial, so the l-th and the u-th smallest hold it between them with a probability that no distribution changes (David and Nagaraja,
Order Statistics, 7.1). Where even the largest of n isn't high enough, the percentile is None, and `needs` says how many it takes: 6 for p50,
29 for p90, 59 for p95, 299 for p99.

Requests that wait in one queue aren't independent: near saturation, true intervals are wider than these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log, log1p, sqrt
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
PERCENTS: Final = (50, 90, 95, 99)
LINEAR: Final = "type 7, interval of order statistics"
CLUSTERED: Final = "type 7 of all gaps, interval by requests (Woodruff)"
MEAN: Final = "mean, t interval"
WILSON: Final = "share, Wilson interval"

_Z: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """value: None where n values don't carry it; `needs` is then how many would. low, high: of 95 %, None where there is no interval."""

    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    needs: int | None = None


def percentile(name: str, unit: str, values: Sequence[float] | Floats, percent: float) -> Figure:
    """Of independent values; percent from 50 to below 100."""
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    ranks = interval_ranks(n, percent)
    if ranks is None:
        return Figure(name, unit, None, None, None, n, LINEAR, fewest(percent))
    low, high = ranks
    return Figure(
        name, unit, float(np.percentile(ordered, percent)), float(ordered[low - 1]), float(ordered[high - 1]), n, LINEAR
    )


@lru_cache(4_096)
def interval_ranks(n: int, percent: float) -> tuple[int, int] | None:
    """Ranks (from 1) of the values that hold the percentile between them with 95 %; None where the largest of n is too low.

    The upper leaves 2.5 % above it, or is the largest; the lower is then the highest that keeps 95 %.
    """
    if n < 2:
        return None
    p = percent / 100
    cdf = _binomial_cdf(n, p)
    upper = min(n, int(np.searchsorted(cdf, (1 + CONFIDENCE) / 2)) + 1)
    lower = int(np.searchsorted(cdf, cdf[upper - 1] - CONFIDENCE, side="right"))
    return (lower, upper) if lower >= 1 else None


@lru_cache
def fewest(percent: float) -> int:
    """Values that it takes before any interval lies within them: p^n + (1 - p)^n <= 5 %."""
    p = percent / 100
    n = ceil(log(1 - CONFIDENCE) / log(p))
    while interval_ranks(n, percent) is None:
        n += 1
    return n


def _binomial_cdf(n: int, p: float) -> Floats:
    """P(B <= k) for k from 0 to n - 1, exact to rounding."""
    k = np.arange(n)
    logs = np.concatenate(([0.0], np.cumsum(np.log((n - k[:-1]) / (k[:-1] + 1)) + log(p) - log1p(-p)))) + n * log1p(-p)
    return np.cumsum(np.exp(logs))


def clustered_percentile(name: str, unit: str, clusters: Sequence[Sequence[float]], percent: float) -> Figure:
    """Of values that belong together, as the gaps of one stream do: n counts them, the interval varies with the clusters.

    Woodruff (1952): the interval of the share of values below the estimate, by the clusters' variance, turned back into values.
    """
    arrays = [np.asarray(one, np.float64) for one in clusters if len(one)]
    values = np.sort(np.concatenate(arrays)) if arrays else np.empty(0)
    n, groups = len(values), len(arrays)
    none = Figure(name, unit, None, None, None, n, CLUSTERED)
    if groups < fewest(50) or interval_ranks(n, percent) is None:
        return none
    value = float(np.percentile(values, percent))
    sizes = np.array([len(one) for one in arrays], np.float64)
    below = np.array([np.count_nonzero(one <= value) for one in arrays], np.float64)
    share = percent / 100
    spread = student(groups - 1) * sqrt(groups / (groups - 1) * float(np.sum((below - share * sizes) ** 2))) / n
    if share + spread >= 1 or share <= spread:
        return none
    low, high = np.percentile(values, [100 * (share - spread), 100 * (share + spread)])
    return Figure(name, unit, value, float(low), float(high), n, CLUSTERED)


def mean(name: str, unit: str, values: Sequence[float] | Floats) -> Figure:
    """With Student's interval: of latencies, which are skewed, it covers a little less than 95 % where n is small."""
    array = np.asarray(values, np.float64)
    n = len(array)
    if n < 2:
        return Figure(name, unit, None, None, None, n, MEAN, 2)
    middle = float(array.mean())
    half = student(n - 1) * float(array.std(ddof=1)) / sqrt(n)
    return Figure(name, unit, middle, middle - half, middle + half, n, MEAN)


def share(name: str, good: int, of: int) -> Figure:
    """Wilson (1927): holds near 0 and 1, where goodput lies."""
    if not of:
        return Figure(name, "", None, None, None, 0, WILSON, 1)
    p, z2 = good / of, _Z * _Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z * sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Figure(name, "", p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), of, WILSON)


def student(degrees: int) -> float:
    """t of 97.5 %. Expansion of Abramowitz and Stegun 26.7.5; the first two degrees, for which it is too rough, as tabled."""
    if degrees < 3:
        return (12.7062, 4.3027)[degrees - 1]
    z, v = _Z, degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
