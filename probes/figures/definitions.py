"""Which figures a stage has, and what each is. Times are of answers that ended well."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tallystick.probes.figures.measures import (
    NS_PER_MS,
    cached_tokens,
    chunk_gaps_ns,
    e2e_ns,
    input_tokens,
    normalised_ns,
    output_tokens,
    tpot_ns,
    ttfc_ns,
    ttft_ns,
)
from tallystick.probes.figures.percentiles import PERCENTS, Figure, clustered_percentile, mean, percentile
from tallystick.probes.figures.rates import Window, rate, shares
from tallystick.probes.records import Record


class Latency(NamedTuple):
    """A time of a request, in ns. Its figures are `<name>_mean`, `<name>_p50` …, in ms."""

    of: Callable[[Record], float | None]
    definition: str


LATENCIES: Final[Mapping[str, Latency]] = {
    "ttft": Latency(
        ttft_ns, "Time to first token: from sending to the first event with generated text, reasoning or a tool call."
    ),
    "ttft_scheduled": Latency(
        lambda record: ttft_ns(record, "scheduled"),
        "Time to first token from when the request was due, so with what it waited for its turn.",
    ),
    "ttfc": Latency(ttfc_ns, "Time to first content: as TTFT, past reasoning and tool calls."),
    "tpot": Latency(
        tpot_ns, "Time per output token after the first: (last generated event - first) / (output tokens - 1), by request."
    ),
    "e2e": Latency(e2e_ns, "End to end: from sending to the end of the answer."),
    "e2e_scheduled": Latency(
        lambda record: e2e_ns(record, "scheduled"),
        "End to end from when the request was due, so with what it waited for its turn.",
    ),
    "normalised": Latency(normalised_ns, "Normalised latency: end to end from sending / output tokens, by request."),
}

DEFINITIONS: Final[Mapping[str, str]] = {
    **{name: latency.definition for name, latency in LATENCIES.items()},
    "icl": "Inter-chunk latency: the time between two generated events of a stream; a chunk is no token.",
    "requests_per_s": "Answers that ended well, a second of the window.",
    "good_requests_per_s": "Goodput: answers a second that ended well and within the target.",
    "input_tokens_per_s": "Prompt tokens of these answers a second, cached ones among them.",
    "cached_tokens_per_s": "Those of them that came from the prefix cache, as the engine told.",
    "output_tokens_per_s": "Generated tokens of these answers a second.",
    "good_share": "Share of requests that ended well and within the target; failures aren't good, cancelled ones only count if they had missed it.",
}
"""Of each figure, a latency's without its `_mean`, `_p50`, `_p90`, `_p95`, `_p99`."""


def latency_figures(answers: Sequence[Record]) -> Iterator[Figure]:
    """In ms, of each latency."""
    for name, latency in LATENCIES.items():
        values = [took / NS_PER_MS for record in answers if (took := latency.of(record)) is not None]
        yield mean(f"{name}_mean", "ms", values)
        yield from (percentile(f"{name}_p{percent}", "ms", values, percent) for percent in PERCENTS)
    gaps = [[gap / NS_PER_MS for gap in chunk_gaps_ns(record)] for record in answers]
    yield from (clustered_percentile(f"icl_p{percent}", "ms", gaps, percent) for percent in PERCENTS)


def rate_figures(answers: Sequence[Record], good: Sequence[bool] | None, over: Window | None) -> Iterator[Figure]:
    """A second of the window. good: which of the answers are within the target, None without one."""
    if over is None:
        return
    parts = shares(answers, over)
    outputs = [output_tokens(record) for record in answers]
    yield rate("requests_per_s", "requests/s", over, parts, [1] * len(answers))
    yield rate("input_tokens_per_s", "tokens/s", over, parts, [input_tokens(record) for record in answers])
    yield rate("cached_tokens_per_s", "tokens/s", over, parts, [cached_tokens(record) for record in answers])
    yield rate("output_tokens_per_s", "tokens/s", over, parts, [tokens and tokens.number for tokens in outputs])
    if good is not None:
        yield rate("good_requests_per_s", "requests/s", over, parts, good)


def definition(name: str) -> str:
    """Of a figure by its whole name. Raises KeyError."""
    return DEFINITIONS.get(name) or DEFINITIONS[name.rpartition("_")[0]]
