"""Which load is measured next, and what a sweep found: the knee, and the highest rate that meets the latency target. Pure.

It begins with one request at a time, whose rate is the first of the open loop (or with the lowest of the rates that are given), doubles
until the target is missed or the engine doesn't keep up, and halves the distance, geometrically, between the highest rate that is met and the
lowest that isn't. What stages are left then go on doubling until the knee is seen.
"""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Final, NamedTuple

from tallystick.probes.config import Load, Target
from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.records import LoadPoint

RESOLUTION: Final = 1.1
"""Between a rate that is met and one that isn't, below which no stage is spent: a stage of 100 requests sees no finer."""
KEEPS_UP: Final = 0.9
"""Of the rate that was sent, at least, that an engine answers where it keeps up: below, a queue grows for as long as the load lasts."""
_CAPACITY_SEEN: Final = 1.05
_MOST: Final = 100_000.0


class Reached(NamedTuple):
    """A stage, as far as the sweep is led by it.

    good_share: of all requests that were sent, those that ended well and within the target. achieved_rate: requests a second that ended well,
    from the first end to the last, (n - 1) / (last - first): over the whole stage it would fall by the ends of its first and last ones, however
    well the engine keeps up. offered_rate: what the schedule came to, in the same way, which chance moves away from a Poisson load's rate, by a
    tenth among 100; None: the load's. valid: it can be trusted, as when the client kept up.
    """

    load: LoadPoint
    good_share: float
    achieved_rate: float
    output_tokens_per_s: float
    valid: bool
    offered_rate: float | None = None


class HighestGood(NamedTuple):
    """rate: the highest within the target, with all that were tried below it; None: none was. below: the lowest above it that wasn't
    within it, or can't be trusted; None: none was tried. reached: what was measured at `rate`. note: what limits it, in words."""

    rate: float | None
    below: float | None
    reached: Reached | None
    note: str


def reached(summary: StageSummary) -> Reached:
    """A stage as sweeps see it."""
    return Reached(
        summary.load,
        summary.value("good_share") or 0.0,
        summary.answered_rate or 0.0,
        summary.value("output_tokens_per_s") or 0.0,
        summary.valid,
        summary.offered_rate,
    )


def next_point(done: Sequence[Reached], load: Load, target: Target) -> LoadPoint | None:
    """The load of the next stage; None where nothing is left to find, or `load.stages` are spent."""
    if len(done) >= load.stages:
        return None
    if not done and not load.rates:
        return LoadPoint("closed", concurrency=1)
    rate = _next_rate(done, load, target)
    # Four digits: what is reported is what was sent.
    return None if rate is None else LoadPoint("poisson", rate=float(f"{rate:.4g}"))


def highest_good(done: Sequence[Reached], target: Target) -> HighestGood:
    """A rate counts where the target is met there and at every rate tried below: what is met above a miss was met by chance, or missed by it."""
    points = _open(done)
    missed = [point for point in points if not _met(point, target)]
    below = _rate(missed[0]) if missed else None
    met = [point for point in points if below is None or _rate(point) < below]
    best = met[-1] if met else None
    note = " ".join(_notes(done, points, missed, best, target))
    return HighestGood(_rate(best) if best else None, below, best, note)


def knee(done: Sequence[Reached]) -> float | None:
    """The rate, of those measured, after which throughput no longer grows with the load; None unless the engine was loaded beyond it.

    By Kneedle (Satopää, Albrecht, Irwin, Raghavan: Finding a "Kneedle" in a Haystack, 2011): where, with both scaled to their largest, what
    was achieved lies farthest above the line from nothing to the highest rate.
    """
    points = [point for point in _open(done) if point.valid]
    if not any(map(_overloaded, points)):
        return None
    fastest, most = _rate(points[-1]), max(point.achieved_rate for point in points)
    if not most:
        return None
    return _rate(max(points, key=lambda point: point.achieved_rate / most - _rate(point) / fastest))


def _next_rate(done: Sequence[Reached], load: Load, target: Target) -> float | None:
    points = _open(done)
    if not points:
        if load.rates:
            return min(load.rates)
        return done[0].achieved_rate or None
    found = highest_good(done, target)
    if found.below is None:
        return _higher(points, load)
    if found.rate is None:
        # Where one request at a time misses it, fewer of them will, too.
        lower = found.below / 2
        return _to_the_knee(points) if _hopeless(done, target) else lower
    # An engine that is overloaded shows its capacity: beyond it there is nothing to look for.
    capacity = max((point.achieved_rate for point in points if point.valid and _overloaded(point)), default=found.below)
    above = min(found.below, capacity * _CAPACITY_SEEN) if capacity > found.rate else found.below
    return sqrt(found.rate * above) if above / found.rate > RESOLUTION else _to_the_knee(points)


def _higher(points: Sequence[Reached], load: Load) -> float | None:
    fastest = _rate(points[-1])
    given = [rate for rate in sorted(load.rates) if rate > fastest]
    higher = given[0] if given else 2 * fastest
    return higher if higher <= _MOST else None


def _to_the_knee(points: Sequence[Reached]) -> float | None:
    if any(not point.valid or _overloaded(point) for point in points):
        return None
    faster = 2 * _rate(points[-1])
    return faster if faster <= _MOST else None


def _notes(
    done: Sequence[Reached], points: Sequence[Reached], missed: Sequence[Reached], best: Reached | None, target: Target
) -> Iterator[str]:
    by_chance = [point for point in points if missed and _rate(point) > _rate(missed[0]) and _met(point, target)]
    if _hopeless(done, target):
        yield "Not even one request at a time is within the target."
    elif not best:
        yield "No rate that was tried is within the target." if points else "No rate was tried."
    elif not missed:
        yield "Every rate that was tried is within the target: the highest lies above."
    elif not missed[0].valid:
        yield f"The stage at {_rate(missed[0]):g}/s can't be trusted: the highest may lie above."
    if missed and missed[0].valid and _within(missed[0], target):
        yield f"At {_rate(missed[0]):g}/s requests were in time, but the engine answered {missed[0].achieved_rate:.4g}/s: a queue grew."
    if by_chance:
        rates = ", ".join(f"{_rate(point):g}/s" for point in by_chance)
        yield f"{rates} met the target though {_rate(missed[0]):g}/s didn't: one of them by chance, and the lower counts."


def _open(done: Sequence[Reached]) -> list[Reached]:
    return sorted((one for one in done if one.load.rate is not None), key=_rate)


def _rate(point: Reached) -> float:
    assert point.load.rate is not None
    return point.load.rate


def _within(point: Reached, target: Target) -> bool:
    return point.good_share >= target.share


def _hopeless(done: Sequence[Reached], target: Target) -> bool:
    """Whether even one request at a time misses the target."""
    return any(one.load.rate is None and one.valid and not _within(one, target) for one in done)


def _overloaded(point: Reached) -> bool:
    return point.achieved_rate < KEEPS_UP * (point.offered_rate or _rate(point))


def _met(point: Reached, target: Target) -> bool:
    return point.valid and _within(point, target) and not _overloaded(point)
