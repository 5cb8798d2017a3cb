"""How figures are named and written, in the report and on a terminal alike."""

from collections.abc import Mapping
from typing import Final

from tallystick.probes.figures.definitions import DEFINITIONS, definition
from tallystick.probes.figures.percentiles import Figure
from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.report.ticks import number

_NAMES: Final[Mapping[str, str]] = {
    "ttft": "TTFT",
    "ttft_scheduled": "TTFT from schedule",
    "ttfc": "TTFC",
    "tpot": "TPOT",
    "e2e": "E2E",
    "e2e_scheduled": "E2E from schedule",
    "normalised": "normalised latency",
    "icl": "inter-chunk latency",
    "requests_per_s": "requests/s",
    "good_requests_per_s": "good requests/s",
    "input_tokens_per_s": "input tokens/s",
    "cached_tokens_per_s": "cached tokens/s",
    "output_tokens_per_s": "output tokens/s",
    "good_share": "good",
}


def titled(name: str) -> str:
    """`TTFT p95` of `ttft_p95`; what isn't known stays as it is."""
    stem, _, last = name.rpartition("_")
    if name in _NAMES or stem not in DEFINITIONS:
        return _NAMES.get(name, name)
    return f"{_NAMES.get(stem, stem)} {last}"


def meanings(*names: str) -> dict[str, str]:
    """Definitions of figures, by what they are called."""
    return {titled(name): definition(name) for name in names}


def written(figure: Figure | None) -> str:
    """`12.3 (11.8 to 13.1)`; why there is none, where n doesn't carry it; shares in percent."""
    if figure is None:
        return "–"
    if figure.value is None:
        return f"– ({figure.n} of {figure.needs} values)" if figure.needs and figure.n else "–"
    factor, unit = (100, " %") if figure.name.endswith("_share") else (1, "")
    shown = f"{number(figure.value * factor)}{unit}"
    if figure.low is None or figure.high is None:
        return shown
    return f"{shown} ({number(figure.low * factor)} to {number(figure.high * factor)})"


def first_token(summary: StageSummary) -> str:
    """Which TTFT a stage is judged by: from when requests were due, in a closed loop from when they were sent."""
    return "ttft" if summary.value("ttft_scheduled_p50") is None else "ttft_scheduled"


def end_to_end(summary: StageSummary) -> str:
    """As `first_token`, of the whole answer."""
    return "e2e" if first_token(summary) == "ttft" else "e2e_scheduled"
