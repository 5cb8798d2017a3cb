"""The report: which sections it has, and its head."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tallystick.probes.loading import LoadedRun
from tallystick.probes.records import LoadPoint, Stage
from tallystick.probes.report import about, compared, load, requests
from tallystick.probes.report.blocks import Block, Section
from tallystick.probes.report.engine_figures import engine_figures
from tallystick.probes.report.facts import when
from tallystick.probes.report.groups import groups
from tallystick.probes.report.limits import Limit, limit_of, rules
from tallystick.probes.report.money import Money, breakeven, priced, prices, usd
from tallystick.probes.report.rendering import Verdict, page, write_page
from tallystick.probes.report.shown import Shown, shown
from tallystick.probes.runs import State


def write_report(path: Path, runs: Sequence[LoadedRun], *, now_ns: int, money: Money | None = None) -> None:
    """One HTML file that needs no other, whole or not at all. The first run is the one that others are held against. Raises OSError.

    money: prices, and break-evens if there are any; without it, the prices that the runs' configurations give.
    """
    write_page(path, report(runs, now_ns=now_ns, money=money))


def report(runs: Sequence[LoadedRun], *, now_ns: int, money: Money | None = None) -> str:
    """HTML of one run or several."""
    all_shown = shown(runs)
    paid = money or priced(runs)
    limits = {run.name: limit_of(run.run) for run in all_shown}
    probes = list(dict.fromkeys(run.info.probe for run in runs))
    entries = ", ".join(run.name for run in all_shown)
    subtitle = f"measured {when(min(run.info.started_ns for run in runs))}; written {when(now_ns)}"
    return page(
        f"Probe {', '.join(probes)}: {entries}",
        subtitle,
        _verdicts(all_shown, limits, paid),
        _sections(all_shown, limits, paid),
        "tallystick; definitions of all figures: docs/probes.md",
    )


def _verdicts(runs: Sequence[Shown], limits: Mapping[str, Limit], paid: Money) -> list[Verdict]:
    """What a reader came for: how runs differ, then a paragraph a run."""
    said = [
        Verdict(words, compared.TONES.get(judgement, ""))
        for comparison in compared.comparisons(runs)
        for judgement, words in compared.headlines(comparison)
    ]
    return said + [_verdict(run, limits[run.name], paid) for run in runs]


def _verdict(run: Shown, limit: Limit, paid: Money) -> Verdict:
    info = run.run.info
    said, tone = [], ""
    if info.state is not State.DONE:
        said.append(f"{run.name} is {info.state}: {info.failure or 'its folder does not say why'}.")
        tone = "bad"
    elif not any(one.valid for one in run.summaries):
        said.append(f"{run.name}: none of its stages can be trusted.")
        tone = "bad"
    if (sentence := limit.sentence(run.name)) is not None:
        said.append(sentence)
    if (price := paid.prices.get(info.id)) is not None:
        said.append(f"{usd(price.all_tokens)} USD a million tokens at {price.capacity.at}, {price.utilisation:.0%} used.")
    if (found := paid.breakevens.get(info.id)) is not None:
        said.append(f"Break-even: {'; '.join(one.verdict for one in found.against)}.")
        tone = tone or ("good" if all(one.winner == "own" for one in found.against) else "")
    return Verdict(" ".join(said) or f"{run.name}: measured without a latency target.", tone)


def _sections(runs: Sequence[Shown], limits: Mapping[str, Limit], paid: Money) -> list[Section]:
    bare = [run.run for run in runs]
    chosen = _alike(runs) or [(run.name, run.colour, stage) for run in runs if (stage := limits[run.name].stage) is not None]
    paying = prices(runs, paid.prices, paid.lacking)
    for run in runs:
        if (found := paid.breakevens.get(run.run.info.id)) is not None:
            paying += breakeven(run.name, found)
    own = [block for run in runs for block in engine_figures(run.name, run.run.stages, run.colour)]
    return [
        Section("measured", "What was measured", about.measured(bare)),
        Section(
            "comparison",
            "Comparison",
            compared.blocks(compared.comparisons(runs)),
            "One run: `tallystick probe compare` holds several against each other.",
        ),
        Section("latency", "Latency over load", load.latency(runs), "No stage has enough answers for a percentile."),
        Section(
            "throughput", "Throughput and goodput over load", load.throughput(runs, rules(runs, limits)), "No stage has a rate."
        ),
        Section("stages", "Every stage", load.every_stage(runs), "No stage ended."),
        Section(
            "distribution", "Spread of the time to first token", _some(requests.distribution(chosen)), "Nothing was answered."
        ),
        Section(
            "timeline",
            "Requests one by one",
            [block for name, _, stage in chosen for block in _some(requests.timeline(name, stage))],
            "No request was sent.",
        ),
        Section("engine", "Engines' own figures", own, "No engine has metrics that could be read."),
        Section(
            "cache", "Cache experiment", groups(runs), "The workload has no cache experiment (`prefix: {experiment: true}`)."
        ),
        Section("money", "Money", paying, "No entry says what its hardware costs (`cost`)."),
        Section(
            "failures",
            "Failures",
            _some(requests.failures([(run.name, run.run.stages) for run in runs])),
            "Every request was answered.",
        ),
        Section("doubts", "What can't be trusted", about.doubts(runs), "Nothing speaks against these figures."),
    ]


def _alike(runs: Sequence[Shown]) -> list[tuple[str, int, Stage]]:
    """Of several runs, the stages at the highest load that they have in common; those that can be trusted go before."""
    if len(runs) < 2:
        return []
    loads: list[list[LoadPoint]] = []
    for trusted in (True, False):
        valid = [{one.load for one in run.summaries if one.requests and (one.valid or not trusted)} for run in runs]
        loads.append(sorted(set.intersection(*valid), key=lambda load: (load.rate or 0, load.concurrency or 0)))
    found = next((common[-1] for common in loads if common), None)
    if found is None:
        return []
    return [(run.name, run.colour, next(stage for stage in run.run.stages if stage.load == found)) for run in runs]


def _some(block: Block | None) -> list[Block]:
    return [] if block is None else [block]
