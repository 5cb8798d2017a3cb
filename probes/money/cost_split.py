"""How the cost of an hour is shared between uncached input, cached input and output: the weight of a token of each. Pure.

fit:    seconds of a request = a·uncached + b·cached + c·output + d, by least squares without negative coefficients, where requests differ enough
times:  time to the first token against time from it to the last
ratio:  as stated, 1 : 0.1 : 4 unless told otherwise
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tallystick.probes.figures import measures
from tallystick.probes.money.hourly_cost import EXACT
from tallystick.probes.records import Outcome, Record

STATED: Final = (Decimal(1), Decimal("0.1"), Decimal(4))
"""Uncached input, cached input, output: about what API price lists have."""

_FEWEST: Final = 20
_LEAST_R2: Final = 0.5
_RESAMPLES: Final = 200
_MOST: Final = 4000
"""Requests that are fitted: the first of them, more wouldn't change what is found."""
_LEAST_S: Final = 1e-6
"""Less can't be told from nothing."""
_UNIT: Final = Decimal("1e-12")

_Floats = NDArray[np.float64]


class Timed(NamedTuple):
    """A request that ended well. cached: None where the engine doesn't tell, and then `uncached` is all of its input."""

    uncached: int
    cached: int | None
    output: int
    to_first_s: float
    after_first_s: float


@dataclass(frozen=True, slots=True)
class Split:
    """weights: of a token of uncached input, cached input and output, uncached input 1. low, high: 95 % of resampled fits, by weight."""

    method: Literal["fit", "times", "ratio"]
    weights: tuple[Decimal, Decimal, Decimal]
    n: int = 0
    r_squared: float | None = None
    low: tuple[float, float, float] | None = None
    high: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """In one line."""
        given = " : ".join(f"{weight.normalize():.3g}" for weight in self.weights)
        match self.method:
            case "fit":
                assert self.low
                assert self.high
                assert self.r_squared is not None
                between = f"output {self.low[2]:.3g} to {self.high[2]:.3g}"
                return (
                    f"least squares over {self.n:,} requests, {given} ({between} in 95 % of resamples), R² {self.r_squared:.3f}"
                )
            case "times":
                return f"time to the first token against time after it, {self.n:,} requests, {given}"
            case "ratio":
                return f"stated ratio {given}"

    def as_json(self) -> dict[str, Any]:
        """Weights are strings."""
        return {
            "method": self.method, "weights": [f"{weight:f}" for weight in self.weights], "n": self.n, "r_squared": self.r_squared,
            "low": self.low, "high": self.high, "how": self.how, "notes": list(self.notes),
        }  # fmt: skip


def timed(records: Iterable[Record]) -> list[Timed]:
    """Those of the records that a split can be taken from: they ended well, and the engine told their tokens."""
    found = []
    for record in measures.measured(tuple(records)):
        whole, output, events = measures.input_tokens(record), measures.output_tokens(record), measures.generated(record)
        if record.outcome is not Outcome.OK or whole is None or not output or not output.number or not events:
            continue
        told = measures.cached_tokens(record)
        cached = None if told is None else min(told, whole)
        first, last = events[0].at_ns, events[-1].at_ns
        found.append(Timed(whole - (cached or 0), cached, output.number, (first - record.sent_ns) / 1e9, (last - first) / 1e9))
    return found


def split(requests: Sequence[Timed], *, stated: tuple[Decimal, Decimal, Decimal] | None = None) -> Split:
    """By the first of the three ways that carries. requests: of the stage where they waited least for each other. stated: asked for, and taken."""
    if stated is not None:
        return Split("ratio", _relative(stated))
    return _fit(requests[:_MOST]) or _by_times(requests) or Split("ratio", _relative(STATED))


def _fit(requests: Sequence[Timed]) -> Split | None:
    if len(requests) < _FEWEST:
        return None
    seconds = np.array([one.to_first_s + one.after_first_s for one in requests])
    columns = np.array([(one.uncached, one.cached or 0, one.output, 1.0) for one in requests])
    caches = bool(np.std(columns[:, 1]) > 0)
    used = [0, 1, 2, 3] if caches else [0, 2, 3]
    centred = columns[:, used[:-1]] - columns[:, used[:-1]].mean(axis=0)
    spread = np.linalg.norm(centred, axis=0)
    if not spread.all() or np.linalg.cond(centred / spread) > 30:
        return None
    found = np.zeros(4)
    found[used] = _non_negative(columns[:, used], seconds)
    total = float(np.sum((seconds - seconds.mean()) ** 2))
    r_squared = 1 - float(np.sum((seconds - columns @ found) ** 2)) / total if total else 0.0
    if not found[0] or not found[2] or r_squared < _LEAST_R2:
        return None
    picks = np.random.default_rng(len(requests)).integers(0, len(requests), (_RESAMPLES, len(requests)))
    again = np.zeros((_RESAMPLES, 4))
    for at, pick in enumerate(picks):
        again[at, used] = _non_negative(columns[pick][:, used], seconds[pick])
    # A weight that is nothing in many resamples isn't known.
    if np.quantile(again[:, [0, 2]], 0.025, axis=0).min() <= 0:
        return None
    notes: tuple[str, ...] = ()
    ratios = again[:, :3] / again[:, :1]
    cached = Decimal(str(found[1] / found[0]))
    if not caches:
        cached, notes = (
            STATED[1],
            (f"no request had more from the cache than another: a cached token is taken for {STATED[1]} of an uncached one",),
        )
        ratios[:, 1] = float(STATED[1])
    low, high = (tuple(float(value) for value in np.quantile(ratios, q, axis=0)) for q in (0.025, 0.975))
    weights = (
        Decimal(1),
        cached.quantize(_UNIT, context=EXACT),
        Decimal(str(found[2] / found[0])).quantize(_UNIT, context=EXACT),
    )
    return Split("fit", weights, len(requests), r_squared, (low[0], low[1], low[2]), (high[0], high[1], high[2]), notes)


def _by_times(requests: Sequence[Timed]) -> Split | None:
    uncached, cached = sum(one.uncached for one in requests), sum(one.cached or 0 for one in requests)
    before, after = sum(one.to_first_s for one in requests), sum(one.after_first_s for one in requests)
    # The first token of an answer is made with the prompt.
    made_after = sum(one.output - 1 for one in requests)
    prompt = Decimal(uncached) + STATED[1] * cached
    if min(before, after) < _LEAST_S or made_after <= 0 or not prompt:
        return None
    weight = Decimal(str(after)) / made_after / (Decimal(str(before)) / prompt)
    note = f"a cached token is taken for {STATED[1]} of an uncached one"
    return Split(
        "times", (Decimal(1), STATED[1], weight.quantize(_UNIT, context=EXACT)), len(requests), notes=(note,) if cached else ()
    )


def _non_negative(columns: _Floats, values: _Floats) -> _Floats:
    """Least squares whose coefficients aren't negative: of few columns the best of all choices which of them are 0."""
    gram, moment = columns.T @ columns, columns.T @ values
    best, least = np.zeros(columns.shape[1]), 0.0
    for size in range(1, columns.shape[1] + 1):
        for chosen in map(list, combinations(range(columns.shape[1]), size)):
            found = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], moment[chosen], rcond=None)[0]
            # Of ‖values − columns·found‖², what depends on `found`.
            error = float(found @ gram[np.ix_(chosen, chosen)] @ found - 2 * found @ moment[chosen])
            if (found >= 0).all() and error < least:
                best, least = np.zeros(columns.shape[1]), error
                best[chosen] = found
    return best


def _relative(weights: tuple[Decimal, Decimal, Decimal]) -> tuple[Decimal, Decimal, Decimal]:
    if any(weight < 0 for weight in weights) or not weights[0]:
        raise ValueError("a ratio is of three numbers that aren't negative, the first (uncached input) more than 0")
    return Decimal(1), weights[1] / weights[0], weights[2] / weights[0]
