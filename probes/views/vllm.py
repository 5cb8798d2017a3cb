"""`vllm bench serve` of vLLM 0.32.0: calculate_metrics in vllm/benchmarks/serve.py, and vllm/benchmarks/lib/endpoint_request_func.py.

Names are those of the file that --save-result writes.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import input_tokens
from tallystick.probes.records import Kind, Outcome, Record
from tallystick.probes.views.seen import seen, told, within

DIFFERS: Final = (
    "TTFT stops at a chat's first chunk, which names the role and holds no text.",
    "ITL is the time between chunks, the role's and the last, empty one among them; TPOT and end to end are to that last one.",
    "Rates are over the whole time from the first request to the end of the last.",
    "A stream without any text has gone well.",
)

_CHUNKS: Final = frozenset({Kind.ROLE, Kind.CONTENT, Kind.REASONING, Kind.TOOL, Kind.OTHER})
"""Those with `choices`. Its clock is read for each chunk, ours once for those that come together: gaps between these are 0."""


def figures(records: Sequence[Record], target: Target | None) -> dict[str, float]:
    """Percentiles: 90, 95 and 99, of those that --metric-percentiles can ask for."""
    chunks = [[event for event in record.events if event.kind in _CHUNKS] for record in records]
    pairs = [
        (record, seen(record, its, told(record) or 1))
        for record, its in zip(records, chunks, strict=True)
        if its and record.outcome in (Outcome.OK, Outcome.EMPTY)
    ]
    if not pairs:
        return {}
    begin = min(record.sent_ns if record.scheduled_ns is None else record.scheduled_ns for record in records)
    seconds = (max(record.ended_ns for record in records) - begin) / 1e9
    well = [one for _, one in pairs]
    inputs = sum(input_tokens(record) or 0 for record, _ in pairs)
    outputs = sum(one.tokens or 0 for one in well)
    found: dict[str, float] = {
        "duration": seconds,
        "completed": len(well),
        "failed": len(records) - len(well),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(well) / seconds,
        "output_throughput": outputs / seconds,
        "total_token_throughput": (inputs + outputs) / seconds,
    }
    if target is not None:
        # "if output_len <= 1, we regard tpot as 0 for goodput"
        found["request_goodput"] = sum(within(target, one.first_ms, one.each_ms or 0.0, one.whole_ms) for one in well) / seconds
    values = {
        "ttft": [one.first_ms for one in well],
        "tpot": [one.each_ms for one in well if one.each_ms is not None],
        "itl": [gap for one in well for gap in one.gaps_ms],
        "e2el": [one.whole_ms for one in well],
    }
    for name, of in values.items():
        array = np.asarray(of or [0.0])
        found |= {f"mean_{name}_ms": float(np.mean(array)), f"median_{name}_ms": float(np.median(array))}
        found[f"std_{name}_ms"] = float(np.std(array))
        found |= {f"p{percent}_{name}_ms": float(np.percentile(array, percent)) for percent in (90, 95, 99)}
    return found
