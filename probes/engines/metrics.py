"""What an engine's /metrics says, under names that are the same for all engines. Which is which: metrics.yaml."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import aiohttp
import yaml

from tallystick.probes.runs import EngineFacts

_PATIENCE_S: Final = 5
_LABEL: Final = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


class Source(NamedTuple):
    """Of one figure. alternatives: the first whose parts are all there counts; its parts are added. mean: over its series, else their sum."""

    name: str
    alternatives: tuple[tuple[str, ...], ...]
    mean: bool


class _Reader(NamedTuple):
    sources: tuple[Source, ...]
    line: re.Pattern[str]


def read_metrics(kind: str, text: str) -> dict[str, float]:
    """The figures that are there, of Prometheus' text format; {} for an engine that tells none. What is no number is left out."""
    reader = _reader(kind)
    if reader is None:
        return {}
    series: dict[str, list[float]] = {}
    # By one regular expression: the library's parser takes 10 ms for the 600 lines of vLLM, in which the client's loop would stand still.
    for name, written in reader.line.findall(text):
        try:
            value = float(written)
        except ValueError:
            continue
        if math.isfinite(value):
            series.setdefault(name, []).append(value)
    figures: dict[str, float] = {}
    for source in reader.sources:
        parts = next((parts for parts in source.alternatives if all(part in series for part in parts)), None)
        if parts is not None:
            values = [value for part in parts for value in series[part]]
            figures[source.name] = sum(values) / (len(values) if source.mean else 1)
    return figures


def read_labels(text: str, names: Sequence[str]) -> dict[str, str]:
    """Labels of the first series of each metric: how engines tell their settings (`vllm:cache_config_info`)."""
    labels: dict[str, str] = {}
    for name in names:
        if line := re.search(rf"^{re.escape(name)}\{{(.*)\}}", text, re.MULTILINE):
            labels |= {label: value for label, value in _LABEL.findall(line[1]) if value not in ("", "None")}
    return labels


async def scrape(session: aiohttp.ClientSession, facts: EngineFacts, key: str | None = None) -> dict[str, float] | None:
    """The engine's figures now; None where it tells none, or not in time."""
    if facts.metrics_url is None:
        return None
    text = await metrics_text(session, facts.metrics_url, key)
    return read_metrics(facts.kind, text) or None if text is not None else None


async def metrics_text(session: aiohttp.ClientSession, url: str, key: str | None = None) -> str | None:
    """What is there; None if it isn't there, or doesn't come in time."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with session.get(
            url, headers=headers, timeout=aiohttp.ClientTimeout(_PATIENCE_S), allow_redirects=True
        ) as response:
            return await response.text(errors="replace") if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None


@cache
def _reader(kind: str) -> _Reader | None:
    text = files("tallystick.probes.engines").joinpath("metrics.yaml").read_text(encoding="utf-8")
    described: Mapping[str, Mapping[str, Mapping[str, list[str]]]] = yaml.safe_load(text)
    if kind not in described:
        return None
    sources: list[Source] = []
    for form, figures in described[kind].items():
        for name, alternatives in figures.items():
            parts = [tuple(written.split(" + ")) for written in alternatives]
            if form == "histograms":
                for ending in ("_sum", "_count"):
                    sources.append(Source(name + ending, tuple((part + ending,) for (part,) in parts), mean=False))
            else:
                sources.append(Source(name, tuple(parts), mean=form == "shares"))
    names = {part for source in sources for parts in source.alternatives for part in parts}
    return _Reader(
        tuple(sources), re.compile(rf"^({'|'.join(map(re.escape, sorted(names)))})(?:\{{.*\}})?[ \t]+(\S+)", re.MULTILINE)
    )
