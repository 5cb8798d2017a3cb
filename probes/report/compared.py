"""Runs held against the first of them, or each against those before it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tallystick.probes.figures.comparing import Comparison, Side, compare, compared_figures
from tallystick.probes.figures.differences import Difference
from tallystick.probes.figures.verdicts import Judgement, Regression, regressions, verdicts
from tallystick.probes.loading import LoadedRun
from tallystick.probes.report.blocks import Block, Table
from tallystick.probes.report.shown import Shown
from tallystick.probes.report.ticks import number
from tallystick.probes.report.wording import meanings, titled

TONES: Final[Mapping[Judgement, str]] = {Judgement.BETTER: "good", Judgement.WORSE: "bad", Judgement.CANNOT: "warn"}


COLUMNS: Final = (
    "base", "now", "load", "figure", "unit", "base_value", "value", "difference", "low", "high", "percent", "n_base", "n", "shown", "verdict",
    "regressed", "worse_percent",
)  # fmt: skip
"""Of `rows_of` and `rows_held`. regressed and worse_percent: only of the latter."""


class Held(NamedTuple):
    """A regression at one load. before: the id of the last run that it is held against."""

    before: str
    load: str
    regression: Regression


def side(run: Shown) -> Side:
    """A run as comparisons take it."""
    config = run.run.info.config
    return Side(run.name, config.get("workload", {}), config.get("target"), run.summaries)


def comparisons(runs: Sequence[Shown]) -> list[Comparison]:
    """Each run against the first."""
    return [compare(side(runs[0]), side(one)) for one in runs[1:]]


def held_against(run: LoadedRun, before: Sequence[LoadedRun], worse_by_percent: float) -> list[Held]:
    """A run's stages against those at the same load of earlier runs, the oldest first. Stages that can't be trusted don't count."""
    found: list[Held] = []
    for one in run.summaries:
        earlier = [(old.info.id, stage) for old in before for stage in old.summaries if stage.valid and stage.load == one.load]
        if one.valid and earlier:
            figures = [
                {name: stage.figures[name] for name in compared_figures(stage) if name in stage.figures} for _, stage in earlier
            ]
            found += [
                Held(earlier[-1][0], one.load.name, each)
                for each in regressions(figures, one.figures, worse_by_percent, compared_figures(one))
            ]
    return found


def blocks(found: Sequence[Comparison]) -> list[Block]:
    """Verdicts and differences with their intervals."""
    made = []
    for one in found:
        rows = [[pair.load, *_row(each)] for pair in one.pairs for each in pair.differences]
        texts = [verdict.words for verdict in verdicts(one)]
        table = None
        names = sorted({each.name for pair in one.pairs for each in pair.differences})
        if rows:
            header = ("load", "figure", one.base, one.now, "difference, with 95 % interval", "%", "shown", "n")
            table = Table(f"{one.now} - {one.base}", header, rows, names=2)
        made.append(Block(f"{one.now} against {one.base}", texts, table=table, definitions=meanings(*names)))
    return made


def headlines(found: Comparison) -> list[tuple[Judgement, str]]:
    """A sentence a judgement: that of the highest load which has it, and at which others it is the same."""
    said = verdicts(found)
    sentences = []
    for judgement in sorted(dict.fromkeys(one.judgement for one in reversed(said)), key=lambda one: one is Judgement.CANNOT):
        *others, last = [one for one in said if one.judgement is judgement]
        also = f"; likewise at {', '.join(one.load for one in others)}" if others else ""
        sentences.append((judgement, f"{last.words}{also}."))
    return sentences


def rows_of(runs: Sequence[Shown], found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """For programs: an object a figure, or a load or a whole that can't be compared, with the reason. Runs are told by id."""
    ids = {run.name: run.run.info.id for run in runs}
    rows = []
    for one in found:
        base, now = ids[one.base], ids[one.now]
        words = {verdict.load: verdict.words for verdict in verdicts(one)}
        if one.cannot:
            rows.append(_plain(base, now, None, None, words[""]))
        for pair in one.pairs:
            each = pair.differences or (None,)
            rows += [_plain(base, now, pair.load, difference, words[pair.load]) for difference in each]
    return rows


def rows_held(now: str, found: Sequence[Held]) -> list[dict[str, Any]]:
    """As `rows_of`, of a run against those before it."""
    return [
        _plain(one.before, now, one.load, one.regression.difference, one.regression.words)
        | {"regressed": one.regression.regressed, "worse_percent": one.regression.worse_percent}
        for one in found
    ]


def _row(one: Difference) -> list[str]:
    factor = 100 if one.name.endswith("_share") else 1
    base, now, value, low, high = (number(each * factor) for each in (one.base, one.now, one.value, one.low, one.high))
    percent = "–" if one.percent is None else f"{one.percent:+.1f}"
    n = f"{one.n_base:,}, {one.n_now:,}"
    return [titled(one.name), base, now, f"{value} ({low} to {high})", percent, "yes" if one.shown else "no", n]


def _plain(base: str, now: str, load: str | None, one: Difference | None, words: str) -> dict[str, Any]:
    return {
        "base": base,
        "now": now,
        "load": load,
        "figure": one and one.name,
        "unit": one and one.unit,
        "base_value": one and one.base,
        "value": one and one.now,
        "difference": one and one.value,
        "low": one and one.low,
        "high": one and one.high,
        "percent": one and one.percent,
        "n_base": one and one.n_base,
        "n": one and one.n_now,
        "shown": one and one.shown,
        "verdict": words,
        "regressed": None,
        "worse_percent": None,
    }
