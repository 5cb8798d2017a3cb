"""Runs as they are sent to a server: their figures by name, and their requests in parts."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, Final

from tallystick.probes.figures.percentiles import Figure
from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.loading import LoadedRun

_PART: Final = 8 << 20
"""Bytes of requests in one part."""


def parts(run: LoadedRun) -> Iterator[dict[str, Any]]:
    """Bodies of POST /v1/probes/runs, in order: requests, and with the last of them what makes the run stand."""
    info = json.loads(json.dumps(asdict(run.info), default=str))
    stages = [pushed_stage(summary) for summary in run.summaries]
    told = [(stage.number, len(stage.records)) for stage in run.stages]
    revision = hashlib.sha256(json.dumps([info, stages, told], sort_keys=True).encode()).hexdigest()
    head = {"run": info, "revision": revision}
    held: list[dict[str, Any]] = []
    size = 0
    for stage in run.stages:
        for record in stage.records:
            # A number, a kind and a comma or two of each event; the rest of a request.
            bytes_ = 32 * len(record.events) + 600
            if held and size + bytes_ > _PART:
                yield {**head, "requests": held, "more": True}
                held, size = [], 0
            held.append({"stage": stage.number, **record.as_json()})
            size += bytes_
    yield {**head, "stages": stages, "requests": held}


def pushed_stage(summary: StageSummary) -> dict[str, Any]:
    """A stage as the server has it: what the engine said of itself is a figure named `engine_…`, a group's its own."""
    figures = [_figure(one) for one in summary.figures.values()]
    figures += [{**_figure(group.ttft), "name": "ttft_p50", "group": group.name} for group in summary.groups]
    for field in fields(summary.engine):
        if (value := getattr(summary.engine, field.name)) is not None:
            method = "of the engine's own metrics"
            figures.append({"name": f"engine_{field.name}", "value": value, "n": summary.engine.scrapes, "method": method})
    return {
        "number": summary.number,
        "load": summary.load.name,
        "valid": summary.valid,
        "reasons": list(summary.reasons),
        "figures": figures,
        "summary": summary.as_json(),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {name: getattr(figure, name) for name in ("name", "unit", "value", "low", "high", "n", "method")}
