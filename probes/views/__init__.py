"""The same records under the names and by the definitions of other tools, so that our figures can be held against theirs.

All of them show any percentile of any number of values, and count no failure's time. What else they do otherwise, each says in `differs`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import measured
from tallystick.probes.records import Record
from tallystick.probes.views import aiperf, guidellm, vllm


class View(NamedTuple):
    """tool: with the version whose definitions these are. differs: from ours, a sentence each. figures: of measured records."""

    tool: str
    differs: tuple[str, ...]
    figures: Callable[[Sequence[Record], Target | None], dict[str, float]]


VIEWS: Final[Mapping[str, View]] = {
    "vllm": View("vllm bench serve 0.32.0", vllm.DIFFERS, vllm.figures),
    "guidellm": View("guidellm 0.8.1", guidellm.DIFFERS, guidellm.figures),
    "aiperf": View("aiperf 0.13.0", aiperf.DIFFERS, aiperf.figures),
}


def view(name: str, records: Sequence[Record], target: Target | None = None) -> dict[str, float]:
    """Of all records of a stage, those that warm up left out: the tool's name of a figure → its value. Empty where no request went well.

    Raises KeyError for a tool that isn't in VIEWS.
    """
    return VIEWS[name].figures(measured(records), target)
