"""aiperf 0.13.0, the successor of genai-perf: aiperf/metrics/types/*.py, statistics by aiperf/metrics/metric_dicts.py.

Names are those of profile_export_aiperf.json, with their statistic: `time_to_first_token.p50`; times in ms.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import NS_PER_MS, generated
from tallystick.probes.records import Outcome, Record
from tallystick.probes.views.seen import seen, told, within

DIFFERS: Final = (
    "ITL is what TPOT is elsewhere: (last text - first text) / (output tokens - 1).",
    "End to end is to the last text, not to the end of the answer.",
    "Output tokens are counted from the text where they were, and only else the engine's own.",
    "Rates are over the time from the first request to the last text.",
)


def figures(records: Sequence[Record], target: Target | None) -> dict[str, float]:
    """Of `content_responses`: chunks with text, reasoning or tool calls."""
    answers = [record for record in records if record.outcome is Outcome.OK and generated(record)]
    if not answers:
        return {}
    well = [
        seen(record, generated(record), told(record) if record.counted_output is None else record.counted_output)
        for record in answers
    ]
    seconds = (max(one.chunks[-1].at_ns for one in well) - min(record.sent_ns for record in answers)) / 1e9
    values: Mapping[str, Sequence[float]] = {
        "time_to_first_token": [one.first_ms for one in well],
        "time_to_second_token": [(one.chunks[1].at_ns - one.chunks[0].at_ns) / NS_PER_MS for one in well if len(one.chunks) > 1],
        "time_to_first_output_token": [one.output_ms for one in well if one.output_ms is not None],
        "request_latency": [one.whole_ms for one in well],
        "inter_chunk_latency": [gap for one in well for gap in one.gaps_ms],
        "inter_token_latency": [one.each_ms for one in well if one.each_ms is not None],
        "output_token_throughput_per_user": [1_000 / one.each_ms for one in well if one.each_ms],
        "output_sequence_length": [one.tokens for one in well if one.tokens is not None],
    }
    found: dict[str, float] = {}
    for tag, of in values.items():
        if of:
            array = np.asarray(of, np.float64)
            found |= {f"{tag}.avg": float(array.mean()), f"{tag}.std": float(array.std())}
            found |= {f"{tag}.min": float(array.min()), f"{tag}.max": float(array.max())}
            found |= {f"{tag}.p{percent}": float(np.percentile(array, percent)) for percent in (50, 90, 95, 99)}
    found["request_throughput.avg"] = len(well) / seconds
    found["output_token_throughput.avg"] = sum(one.tokens or 0 for one in well) / seconds
    if target is not None:
        found["goodput.avg"] = sum(within(target, one.first_ms, one.each_ms, one.whole_ms) for one in well) / seconds
    return found
