"""Comparisons in words, and whether a run is worse than those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import fmean, stdev
from typing import Final

from tallystick.probes.figures.comparing import Comparison, Pair, larger_is_better
from tallystick.probes.figures.differences import Difference, allowed_for, difference
from tallystick.probes.figures.percentiles import Figure, student
from tallystick.probes.report.ticks import number
from tallystick.probes.report.wording import titled

REPEATS: Final = 3
"""Runs before, at least, from which is known how runs vary."""


MOST_TOLD: Final = 3
"""Differences in a sentence; all of them are in the comparison."""


class Judgement(StrEnum):
    """BETTER, WORSE: `now` is, in what is shown to differ. MIXED: in some it is, in some it isn't. SAME: nothing is shown to differ."""

    BETTER = "better"
    WORSE = "worse"
    MIXED = "mixed"
    SAME = "same"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True)
class Verdict:
    """load: '' where the comparison as a whole has none. words: a sentence."""

    load: str
    judgement: Judgement
    words: str


def verdicts(comparison: Comparison) -> tuple[Verdict, ...]:
    """One for each load at which both were measured, or one for the whole where there is none."""
    if comparison.cannot:
        words = f"{comparison.base} and {comparison.now} can't be compared: {comparison.cannot}"
        return (Verdict("", Judgement.CANNOT, words),)
    return tuple(_verdict(comparison, pair) for pair in comparison.pairs)


def _verdict(comparison: Comparison, pair: Pair) -> Verdict:
    base, now = comparison.base, comparison.now
    if pair.cannot:
        return Verdict(pair.load, Judgement.CANNOT, f"{base} and {now} can't be compared at {pair.load}: {pair.cannot}")
    better = [one for one in pair.differences if one.shown and improved(one)]
    worse = [one for one in pair.differences if one.shown and not improved(one)]
    if better and worse:
        words = (
            f"{now} is better than {base} in one thing and worse in another at {pair.load}: {_listed(better)}; {_listed(worse)}"
        )
        return Verdict(pair.load, Judgement.MIXED, words)
    if better or worse:
        judgement, way = (Judgement.BETTER, "faster") if better else (Judgement.WORSE, "slower")
        return Verdict(pair.load, judgement, f"{now} is {way} than {base} at {pair.load}: {_listed(better or worse)}")
    spans = ", ".join(f"{titled(one.name)} {_interval(one)}" for one in pair.differences[:2])
    return Verdict(pair.load, Judgement.SAME, f"no difference between {base} and {now} is shown at {pair.load}: {spans}")


def improved(one: Difference) -> bool:
    """What was measured now is better, by however little."""
    return (one.value > 0) is larger_is_better(one.name)


def told(one: Difference) -> str:
    """`TTFT p50 12 ms lower (8 to 17)`."""
    way = "higher" if one.value > 0 else "lower"
    near, far = sorted((abs(one.low), abs(one.high)))
    factor, unit = _scale(one)
    return f"{titled(one.name)} {number(abs(one.value) * factor)}{unit} {way} ({number(near * factor)} to {number(far * factor)})"


def _listed(differences: Sequence[Difference]) -> str:
    rest = len(differences) - MOST_TOLD
    return ", ".join(told(one) for one in differences[:MOST_TOLD]) + (f", and {rest} more" if rest > 0 else "")


def _interval(one: Difference) -> str:
    factor, unit = _scale(one)
    return f"{number(one.low * factor)} to {number(one.high * factor)}{unit}"


def _scale(one: Difference) -> tuple[float, str]:
    if one.name.endswith("_share"):
        return 100, " points"
    return 1, f" {one.unit}" if one.unit and not one.name.endswith("_per_s") else ""


@dataclass(frozen=True, slots=True)
class Regression:
    """A figure against those of earlier runs. worse_percent: how much worse it is, below 0 where it is better. regressed: by more than was
    allowed, and not by chance. words: a sentence."""

    difference: Difference
    runs: int
    worse_percent: float
    regressed: bool
    words: str


def regression(before: Sequence[Figure], now: Figure, worse_by_percent: float) -> Regression | None:
    """before: of the same load in earlier runs, the oldest first. None: nothing there to hold it against.

    Up to two runs: against the last, whose own interval counts. Three and more: against their mean, and besides it must lie where their spread
    lets no further run fall (prediction interval of 95 %, t): requests of one run don't show how runs differ.
    """
    known = [figure for figure in before if figure.value is not None]
    if not known or now.value is None:
        return None
    values = [figure.value for figure in known if figure.value is not None]
    one = difference(known[-1], now)
    if len(values) >= REPEATS:
        one = _predicted(values, now, one)
    if one is None or not one.base:
        return None
    return _judged(one, len(values), worse_by_percent)


def regressions(
    before: Sequence[Mapping[str, Figure]], now: Mapping[str, Figure], worse_by_percent: float, names: Sequence[str]
) -> tuple[Regression, ...]:
    """Of several figures by name, as `StageSummary.figures` has them; that one of many regressed is allowed for (Holm)."""
    found = [
        one
        for name in names
        if name in now and (one := regression([run[name] for run in before if name in run], now[name], worse_by_percent))
    ]
    differences = allowed_for([one.difference for one in found])
    return tuple(_judged(difference, one.runs, worse_by_percent) for difference, one in zip(differences, found, strict=True))


def _judged(one: Difference, runs: int, worse_by_percent: float) -> Regression:
    change = 100 * one.value / one.base
    worse = -change if larger_is_better(one.name) else change
    regressed = one.shown and worse > worse_by_percent
    against = "the last run" if runs < REPEATS else f"the mean of {runs} runs"
    if regressed:
        words = f"{told(one)} than in {against}: {worse:.0f} % worse"
    elif one.shown and not improved(one):
        words = f"{told(one)} than in {against}: {worse:.1f} % worse, within {worse_by_percent:g} %"
    elif one.shown:
        words = f"{told(one)} than in {against}: better"
    else:
        words = f"{titled(one.name)}: no difference from {against} is shown ({_interval(one)})"
    return Regression(one, runs, worse, regressed, words)


def _predicted(values: Sequence[float], now: Figure, last: Difference | None) -> Difference | None:
    if now.value is None:
        return None
    n, middle = len(values), fmean(values)
    spread = student(n - 1) * stdev(values) * sqrt(1 + 1 / n)
    down = up = spread
    if last is not None:
        down, up = max(spread, last.value - last.low), max(spread, last.high - last.value)
    return Difference.of(now.name, now.unit, middle, now.value, down=down, up=up, n_base=n, n_now=now.n)
