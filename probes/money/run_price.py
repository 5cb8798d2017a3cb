"""The price that a run was measured for: at the highest rate within the latency target, its capacity and its split. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from tallystick.probes.config import Cost, Target
from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.load.sweep import highest_good, reached
from tallystick.probes.money.cost_split import split, timed
from tallystick.probes.money.hourly_cost import hourly_cost
from tallystick.probes.money.measured_price import Capacity, MeasuredPrice, NoPrice, measured_price
from tallystick.probes.records import Stage


def price_of(
    stages: Sequence[Stage],
    summaries: Sequence[StageSummary],
    cost: Cost,
    target: Target | None,
    *,
    watts: float | None = None,
    stated: tuple[Decimal, Decimal, Decimal] | None = None,
) -> MeasuredPrice:
    """summaries: of these stages. watts: measured while the run went. stated: how much a token of each bucket is to weigh. Raises NoPrice."""
    capacity = at_target(summaries, target)
    if capacity is None:
        raise NoPrice(_why_not(summaries, target))
    best = max(_capacities(summaries), key=lambda of: of.tokens_per_s)
    valid = {one.number for one in summaries if one.valid}
    calmest = min(
        (stage for stage in stages if stage.number in valid), key=lambda stage: stage.load.rate or stage.load.concurrency or 0
    )
    return measured_price(hourly_cost(cost, watts), capacity, split(timed(calmest.records), stated=stated), best=best)


def at_target(summaries: Sequence[StageSummary], target: Target | None) -> Capacity | None:
    """At the rate that a sweep would name as the highest within the target; of closed loops, and without a target, at the most requests a second."""
    if target is None:
        return max(_capacities(summaries), key=lambda one: one.requests_per_s, default=None)
    points = [(one, reached(one)) for one in summaries]
    best = highest_good([point for _, point in points], target).reached
    if best is not None:
        held = [one for one, point in points if point is best]
    else:
        closed = [one for one in summaries if one.load.rate is None]
        held = [one for one in closed if one.valid and (one.value("good_share") or 0) >= target.share]
    found = max(_capacities(held), key=lambda one: one.requests_per_s, default=None)
    return replace(found, target=_in_words(target)) if found else None


def _capacities(summaries: Sequence[StageSummary]) -> Iterator[Capacity]:
    return (of for one in summaries if one.valid and (of := capacity_of(one)))


def capacity_of(summary: StageSummary) -> Capacity | None:
    """What was done in a stage; None where its tokens or its time aren't known. What came from a cache: as usage told, else as /metrics did."""
    requests, whole, output = (summary.value(f"{name}_per_s") for name in ("requests", "input_tokens", "output_tokens"))
    if requests is None or whole is None or output is None or whole + output <= 0:
        return None
    cached = summary.value("cached_tokens_per_s")
    if cached is None and summary.engine.prefix_hit_share is not None:
        cached = whole * summary.engine.prefix_hit_share
    return Capacity(requests, max(0.0, whole - (cached or 0.0)), cached, output, summary.load.name)


def _why_not(summaries: Sequence[StageSummary], target: Target | None) -> str:
    valid = [one for one in summaries if one.valid]
    if not valid:
        reasons = sorted({reason for one in summaries for reason in one.reasons})
        return f"no stage is valid: {'; '.join(reasons[:3]) or 'there is none'}"
    if not any(_capacities(valid)):
        return "no valid stage has token counts: the engine tells no usage, and no tokeniser counted"
    assert target is not None
    best = max((one.value("good_share") or 0.0) for one in valid)
    return f"no rate kept {_in_words(target)}: at best {best:.1%} of the requests did; measure lower rates, or allow more"


def _in_words(target: Target) -> str:
    limits = [("TTFT", target.ttft_ms), ("TPOT", target.tpot_ms), ("end to end", target.e2e_ms)]
    named = ", ".join(f"{name} {most:g} ms" for name, most in limits if most is not None)
    return f"{named} for {target.share:.4g} of requests"
