"""Cache experiments: what a prompt's beginning costs that was seen before, and what it doesn't."""

from collections.abc import Mapping, Sequence
from typing import Final

from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.shown import Shown
from tallystick.probes.report.ticks import number
from tallystick.probes.report.wording import written

DEFINITIONS: Final[Mapping[str, str]] = {
    "cold": "prompts whose beginning nobody sent before",
    "warm": "prompts whose beginning was sent before, one request after another",
    "interleaved": "the same, with a control after each",
    "control": "prompts as long as these, whose beginning is new, in turns with interleaved ones: what changes in the engine meanwhile hits both",
    "cached": "share of the prompts' tokens that came from the cache, as the engine told in its usage",
}


def groups(runs: Sequence[Shown]) -> list[Block]:
    """Medians of TTFT by group, and their differences with interval; no block where no requests were held against others."""
    rows, differences = [], []
    for run in runs:
        for one in run.summaries:
            for group in one.groups:
                cached = "–" if group.cached_share is None else f"{100 * group.cached_share:.1f} %"
                rows.append([run.name, one.load.name, group.name, f"{group.requests:,}", cached, written(group.ttft)])
            for difference in one.differences:
                said = "yes" if difference.shown else "no"
                bounds = f"{number(difference.value)} ms ({number(difference.low)} to {number(difference.high)})"
                differences.append([run.name, one.load.name, difference.name, bounds, said])
    blocks = []
    if rows:
        table = Table("groups", ("run", "load", "group", "n", "cached", "TTFT p50, ms"), rows, names=3)
        blocks.append(Block(table=table, definitions=DEFINITIONS))
    if differences:
        between = ("run", "load", "difference", "of the medians of TTFT, with 95 % interval", "shown")
        blocks.append(Block(table=Table("differences", between, differences, names=3)))
    return blocks
