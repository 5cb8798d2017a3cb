"""What an engine said of itself during a stage, from its /metrics: levels at most and on average, counters by their growth.

Names are canonical (probes/engines/metrics.py). None is what it doesn't tell, or what a restart in between has made unknowable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tallystick.probes.figures.measures import output_tokens
from tallystick.probes.records import Record, Sample


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """scrapes: how many. Shares are of 1. kv: KV-cache use. prefix_hit_share: of prompt tokens looked up in the prefix cache, by the engine.

    accepted_share: of tokens drafted by speculative decoding.
    """

    scrapes: int
    kv_mean: float | None = None
    kv_most: float | None = None
    running_mean: float | None = None
    running_most: float | None = None
    waiting_mean: float | None = None
    waiting_most: float | None = None
    prefix_hit_share: float | None = None
    prompt_tokens: float | None = None
    cached_prompt_tokens: float | None = None
    generated_tokens: float | None = None
    preemptions: float | None = None
    accepted_share: float | None = None


def engine_figures(samples: Sequence[Sample], started_ns: int) -> EngineFigures:
    """Since a stage's start: what warmed it up before is left out. Counters grow from the last sample before it to the last of all."""
    before = [sample for sample in samples if sample.at_ns <= started_ns]
    during = [sample for sample in samples if sample.at_ns > started_ns]
    samples = [*before[-1:], *during]
    kv, running, waiting = (_level(during, name) for name in ("kv_cache_usage", "requests_running", "requests_waiting"))
    return EngineFigures(
        len(during),
        *kv,
        *running,
        *waiting,
        _share(grown(samples, "prefix_cache_hits"), grown(samples, "prefix_cache_queries")),
        grown(samples, "prompt_tokens"),
        grown(samples, "cached_prompt_tokens"),
        grown(samples, "generated_tokens"),
        grown(samples, "preemptions"),
        _share(grown(samples, "accepted_draft_tokens"), grown(samples, "draft_tokens")),
    )


def grown(samples: Sequence[Sample], name: str) -> float | None:
    """Of a counter, over those that have it; None for fewer than two, or where it fell: the engine was started anew."""
    values = [sample.values[name] for sample in samples if name in sample.values]
    if len(values) < 2 or any(after < before for before, after in pairwise(values)):
        return None
    return values[-1] - values[0]


def disagreement(samples: Sequence[Sample], records: Sequence[Record]) -> str | None:
    """How the engine's own count of generated tokens differs from what its answers told, in words; None: by less than 5 %, or unknown.

    records: all of the stage, warm-up too. It is held against those that lie between the first sample and the last, and said only where
    that is all of them: the engine counts tokens of half answers, and the answers don't tell them.
    """
    counted = grown(samples, "generated_tokens")
    told = [output_tokens(record) for record in records]
    if counted is None or not records or any(one is None for one in told):
        return None
    within = min(record.sent_ns for record in records) >= samples[0].at_ns and samples[-1].at_ns >= max(
        record.ended_ns for record in records
    )
    total = sum(one.number for one in told if one is not None)
    if not within or abs(counted - total) <= 0.05 * max(counted, total):
        return None
    return f"the engine counted {counted:,.0f} output tokens, its answers told {total:,}: others use it, or one of them is wrong"


def _level(samples: Sequence[Sample], name: str) -> tuple[float | None, float | None]:
    values = [sample.values[name] for sample in samples if name in sample.values]
    return (sum(values) / len(values), max(values)) if values else (None, None)


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
