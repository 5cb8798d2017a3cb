"""Latency, throughput and goodput over load."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tallystick.probes.figures.summary import StageSummary
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.plots import Plot, Point, Rule, Series
from tallystick.probes.report.shown import Shown
from tallystick.probes.report.wording import end_to_end, first_token, meanings, titled, written

_LATENCIES: Final = (
    "ttft_p50", "ttft_p95", "ttft_scheduled_p50", "ttft_scheduled_p95", "tpot_p50", "tpot_p95", "icl_p95", "e2e_p50", "e2e_p95",
)  # fmt: skip
_RATES: Final = (
    "requests_per_s", "good_requests_per_s", "good_share", "input_tokens_per_s", "cached_tokens_per_s", "output_tokens_per_s",
)  # fmt: skip
_STEEP: Final = 30
"""From the lowest to the highest figure: beyond this an axis is logarithmic."""


class _Drawn(NamedTuple):
    """name: of the figure, by stage, before `_p50`. suffixes: of those that are drawn. factor: 100 for a share in percent."""

    title: str
    name: Callable[[StageSummary], str]
    unit: str
    suffixes: Sequence[str] = ("",)
    factor: float = 1.0


def latency(runs: Sequence[Shown]) -> list[Block]:
    """TTFT, TPOT and E2E, medians and 95th percentiles with intervals, and the target's line."""
    target = next((run.run.target for run in runs if run.run.target is not None), None)
    both = ("_p50", "_p95")
    blocks = []
    for drawn, most in (
        (_Drawn("Time to first token", first_token, "ms", both), target and target.ttft_ms),
        (_Drawn("Time per output token", lambda _: "tpot", "ms", both), target and target.tpot_ms),
        (_Drawn("End to end", end_to_end, "ms", both), target and target.e2e_ms),
    ):
        rules = [Rule("y", most, f"target {most:g} ms")] if most else []
        alt = "Medians, and 95th percentiles fainter, with 95 % intervals as bands; hollow marks can't be trusted."
        if plot := _plot(drawn, runs, rules, alt):
            stems = sorted({drawn.name(one) for run in runs for one in run.summaries})
            names = [stem + suffix for suffix in both for stem in stems]
            table = _table(f"{drawn.title}, ms, with 95 % intervals", runs, names)
            blocks.append(Block(drawn.title, plot=plot, table=table, definitions=meanings(*names)))
    return blocks


def throughput(runs: Sequence[Shown], limits: Sequence[Rule] = ()) -> list[Block]:
    """Output tokens a second and the share of good requests. limits: where the knee and the goodput limit of each run are."""
    blocks = []
    for drawn, beside in (
        (_Drawn("Output tokens a second", lambda _: "output_tokens_per_s", "tokens/s"), "requests_per_s"),
        (_Drawn("Requests within the target", lambda _: "good_share", "%", factor=100.0), "good_requests_per_s"),
    ):
        rules = list(limits)
        if drawn.factor != 1:
            shares = {run.run.target.share for run in runs if run.run.target is not None}
            rules += [Rule("y", 100 * share, f"asked {100 * share:g} %") for share in sorted(shares)]
        if plot := _plot(drawn, runs, rules, "Each point is a stage, with its 95 % interval; hollow marks can't be trusted."):
            names = [*sorted({drawn.name(one) for run in runs for one in run.summaries}), beside]
            table = _table(f"{drawn.title}, with 95 % intervals", runs, names)
            blocks.append(Block(drawn.title, plot=plot, table=table, definitions=meanings(*names)))
    return blocks


def every_stage(runs: Sequence[Shown]) -> list[Block]:
    """All figures of all stages."""
    blocks = []
    for caption, names in (("latencies, ms, with 95 % intervals", _LATENCIES), ("rates, with 95 % intervals", _RATES)):
        known = [name for name in names if any(one.value(name) is not None for run in runs for one in run.summaries)]
        if known:
            blocks.append(Block(table=_table(caption, runs, known), definitions=meanings(*known)))
    return blocks


def _plot(drawn: _Drawn, runs: Sequence[Shown], rules: Sequence[Rule], alt: str) -> Plot | None:
    series = []
    for run in runs:
        for suffix in drawn.suffixes:
            points = [point for one in run.summaries if (point := _point(run.name, one, drawn.name(one) + suffix, drawn.factor))]
            if points:
                series.append(
                    Series(f"{run.name} {suffix.removeprefix('_')}".rstrip(), points, run.colour, faint=suffix == "_p95")
                )
    if not series:
        return None
    closed = any(one.load.concurrency is not None for run in runs for one in run.summaries)
    ys = [point.y for one in series for point in one.points]
    return Plot(
        f"{drawn.title} over load",
        alt,
        "requests at once" if closed else "requests a second offered",
        drawn.unit,
        series,
        rules,
        log_y=drawn.unit == "ms" and min(ys) > 0 and max(ys) / min(ys) > _STEEP,
        top=100.0 if drawn.factor != 1 else None,
    )


def _point(run: str, one: StageSummary, name: str, factor: float) -> Point | None:
    figure = one.figures.get(name)
    x = one.load.concurrency if one.load.rate is None else one.load.rate
    if figure is None or figure.value is None or x is None:
        return None
    low, high = (None if end is None else end * factor for end in (figure.low, figure.high))
    # Latencies of a censored stage are those of requests that were fast enough.
    sure = one.valid and not (one.censored and figure.unit == "ms")
    doubt = "" if sure else "; not to be trusted"
    label = f"{run}, {one.load.name}: {titled(name)} {written(figure)}, n {figure.n}{doubt}"
    return Point(float(x), figure.value * factor, low, high, label, sure)


def _table(caption: str, runs: Sequence[Shown], names: Sequence[str]) -> Table:
    rows = [
        [
            run.name,
            one.load.name,
            f"{one.requests:,}",
            *(written(one.figures.get(name)) for name in names),
            "no" if not one.valid else "not its latencies" if one.censored else "yes",
        ]
        for run in runs
        for one in run.summaries
    ]
    return Table(caption, ("run", "load", "n", *map(titled, names), "trusted"), rows, names=2)
