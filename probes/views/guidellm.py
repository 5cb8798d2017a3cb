"""guidellm 0.8.1: guidellm/schemas/base/request_stats.py and statistics.py, guidellm/benchmark/schemas/metrics.py.

Names are those of its report's `metrics`, the `successful` ones, with their statistic: `time_to_first_token_ms.median`. Its window is what its
benchmark measured; here it is from the first sending to the last end.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import generated, input_tokens
from tallystick.probes.figures.percentiles import Floats
from tallystick.probes.records import Outcome, Record
from tallystick.probes.views.seen import seen, told, within

DIFFERS: Final = (
    "TPOT is (last token - sending) / output tokens, so it holds the time to the first token; its ITL is what TPOT is elsewhere.",
    "Both are weighted by tokens: a long answer counts more than a short one.",
    "Without usage, each chunk counts as a token.",
    "A percentile is a value that occurs, not one between two.",
)


def figures(records: Sequence[Record], target: Target | None) -> dict[str, float]:
    """Latencies of requests in seconds, others in ms, as there."""
    answers = [record for record in records if record.outcome is Outcome.OK and generated(record)]
    if not answers:
        return {}
    well = [seen(record, (chunks := generated(record)), told(record) or len(chunks)) for record in answers]
    tokens = np.array([one.tokens or 0 for one in well], np.float64)
    inputs = sum(input_tokens(record) or 0 for record in answers)
    latencies = [(record.ended_ns - record.sent_ns) / 1e9 for record in answers]
    seconds = (max(record.ended_ns for record in records) - min(record.sent_ns for record in records)) / 1e9
    ones = np.ones(len(well))
    found: dict[str, float] = {
        "requests_per_second.mean": len(well) / seconds,
        "output_tokens_per_second.mean": float(tokens.sum()) / seconds,
        "tokens_per_second.mean": float(tokens.sum() + inputs) / seconds,
    }
    for name, values, weights in (
        ("request_latency", latencies, ones),
        ("time_to_first_token_ms", [one.first_ms for one in well], ones),
        ("time_to_first_output_token_ms", [one.output_ms or 0.0 for one in well], ones),
        ("time_per_output_token_ms", [one.whole_ms / (one.tokens or 1) for one in well], tokens),
        ("inter_token_latency_ms", [one.each_ms or 0.0 for one in well], tokens - 1),
    ):
        found |= {f"{name}.{statistic}": value for statistic, value in _summary(np.asarray(values), weights)}
    if target is not None:
        good = [within(target, one.first_ms, one.each_ms, whole * 1_000) for one, whole in zip(well, latencies, strict=True)]
        found["goodput_requests_per_second.mean"] = sum(good) / seconds
    return found


def _summary(values: Floats, weights: Floats) -> Iterator[tuple[str, float]]:
    """DistributionSummary.from_values: what has no weight is left out, unless nothing has any."""
    if weights.sum() <= 1e-6:
        weights = np.ones_like(values)
    order = np.argsort(values, kind="stable")
    order = order[weights[order] > 0]
    values, shares = values[order], weights[order] / weights[order].sum()
    upto = np.cumsum(shares)
    mean = float(np.sum(values * shares))
    yield "mean", mean
    yield "std_dev", float(np.sqrt(np.sum((values - mean) ** 2 * shares)))
    for name, share in (("median", 0.5), ("percentiles.p90", 0.9), ("percentiles.p95", 0.95), ("percentiles.p99", 0.99)):
        yield name, float(values[min(int(np.searchsorted(upto, share)), len(values) - 1)])
