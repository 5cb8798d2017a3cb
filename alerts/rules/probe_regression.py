"""A probe's newest run, worse than the median of those before it.

Runs are compared that asked the same in the same way (workload and load of their configuration), and latencies at the same load; of throughput
the highest of a run's stages counts, as a given load says nothing of it until the engine is full. A run is worse only where the near end of its figure's
interval is, too. Runs and stages that are invalid don't count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from statistics import median
from typing import Final, NamedTuple

from tallystick.alerts.config_rules import ProbeFigure, ProbeRegressionRule
from tallystick.alerts.rules.finding import EPOCH, Finding
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import Bound, filled


class _Kind(NamedTuple):
    """figure: of probes/figures/definitions.py. sign: 1 where more is worse."""

    figure: str
    title: str
    unit: str
    sign: int


_KINDS: Final[Mapping[ProbeFigure, _Kind]] = {
    ProbeFigure.TTFT: _Kind("ttft_p50", "TTFT p50", "ms", 1),
    ProbeFigure.TPOT: _Kind("tpot_p50", "TPOT p50", "ms", 1),
    ProbeFigure.THROUGHPUT: _Kind("output_tokens_per_s", "throughput", "output tokens/s", -1),
}


class Measured(NamedTuple):
    """A figure; its interval is None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Series:
    """The newest run of a probe's entry, and those before it, the newest first: the figure by load."""

    probe: str
    entry: str
    run: str
    at: datetime
    now: Mapping[str, Measured]
    before: tuple[Mapping[str, Measured], ...]

    @property
    def value(self) -> str:
        """What is judged by itself: neither name has a space."""
        return f"{self.probe} {self.entry}"


def figures(ask: Ask, rule: ProbeRegressionRule) -> Iterator[Series]:
    """Of every probe and entry that has a valid run."""
    bind = Bound()
    engine = ""
    if rule.engine is not None:
        name = bind(rule.engine, "String")
        engine = f" AND (entry = {name} OR engine = {name})"
    text = filled(
        "probes",
        engine=engine,
        most=bind(rule.runs + 1, "UInt32"),
        figure=bind(_KINDS[rule.figure].figure, "String"),
    )
    for (probe, entry), rows in groupby(ask(text, bind.params), lambda row: (row[0], row[1])):
        found = [(run, at, _by_load(rule, list(of))) for (_, run, at), of in groupby(rows, lambda row: (row[2], row[3], row[4]))]
        run, at, now = found[0]
        yield Series(probe, entry, run, EPOCH + timedelta(microseconds=at), now, tuple(loads for _, _, loads in found[1:]))


def judge(rule: ProbeRegressionRule, series: Series, note: Callable[[str], object] = lambda _: None) -> Finding | None:
    """The load at which it is worst. note: is told why nothing can be judged."""
    kind = _KINDS[rule.figure]
    if len(series.before) < rule.runs:
        note(
            f"{series.value}: {len(series.before)} of the {rule.runs} comparable runs that it is to be held against: not judged yet"
        )
        return None
    usual = {load: median(known) for load in series.now if len(known := _of(series.before, load)) * 2 > rule.runs}
    if not usual:
        note(
            f"{series.value}: run {series.run} has no {kind.title} at a load that most of the {rule.runs} runs before have, too: not judged"
        )
        return None
    worse = {
        load: _percent(kind.sign, series.now[load].value, of)
        for load, of in usual.items()
        if of > 0 and _shown(kind.sign, series.now[load], of)
    }
    if not worse:
        return None
    load = max(worse, key=lambda one: worse[one])
    if worse[load] <= float(rule.worse_by_percent):
        return None
    now = series.now[load]
    interval = f" ({now.low:.4g} to {now.high:.4g})" if now.low is not None and now.high is not None else ""
    reason = (
        f"{kind.title} of {series.entry} {f'at {load} ' if load else ''}is {now.value:.4g} {kind.unit}{interval}, where the median of "
        f"the {len(_of(series.before, load))} runs before is {usual[load]:.4g}: {worse[load]:.0f} % worse. "
        f"The run is {series.run} of {series.at:%Y-%m-%d %H:%M} UTC."
    )
    return Finding(series.value, f"{rule.figure}:worse", series.at, reason, _decimal(now.value), _decimal(usual[load]))


def _by_load(rule: ProbeRegressionRule, rows: Sequence[Sequence[object]]) -> dict[str, Measured]:
    """Of one run; of throughput the highest, under ''."""
    found = {str(row[5]): Measured(*row[6:9]) for row in rows if row[6] is not None}  # type: ignore[arg-type]
    if rule.figure is not ProbeFigure.THROUGHPUT or not found:
        return found
    return {"": max(found.values(), key=lambda one: one.value)}


def _of(before: Sequence[Mapping[str, Measured]], load: str) -> list[float]:
    return [run[load].value for run in before if load in run]


def _shown(sign: int, now: Measured, usual: float) -> bool:
    near = now.low if sign > 0 else now.high
    return near is None or (near - usual) * sign > 0


def _percent(sign: int, now: float, usual: float) -> float:
    return sign * (now - usual) / usual * 100


def _decimal(value: float) -> Decimal:
    return Decimal(f"{value:.6g}")
