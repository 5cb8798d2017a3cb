"""Two runs held against each other: what isn't there isn't shown, what is there is found, and what can't be compared says why."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_stages import HEALTHY, poisson, stage

from tallystick.probes.config import Target
from tallystick.probes.figures.comparing import Comparison, Pair, Side, compare, larger_is_better
from tallystick.probes.figures.definitions import DEFINITIONS
from tallystick.probes.figures.differences import Difference, allowed_for, difference
from tallystick.probes.figures.percentiles import Figure, mean, percentile, share
from tallystick.probes.figures.summary import summarise
from tallystick.probes.figures.verdicts import Judgement, Verdict, regression, regressions, verdicts
from tallystick.probes.records import LoadPoint, Outcome, Record

TARGET = {"ttft_ms": 150.0}
WORKLOAD: dict[str, Any] = {"input_tokens": 100, "output_tokens": 11}


def side(name: str, *stages: Sequence[Record], **changes: Any) -> Side:
    """A run at 4 requests a second, and at 8, and so on, one stage each."""
    loads = [LoadPoint("poisson", rate=4.0 * (i + 1)) for i in range(len(stages))]
    summaries = [summarise(stage(one, load), Target.model_validate(TARGET)) for one, load in zip(stages, loads, strict=True)]
    return replace(Side(name, WORKLOAD, TARGET, summaries), **changes)


def only(base: Side, now: Side) -> Verdict:
    (verdict,) = verdicts(compare(base, now))
    return verdict


@pytest.mark.parametrize(("n", "percent"), [(12, 50), (200, 50), (200, 95)])
def test_no_difference_of_equal_distributions_is_shown(n: int, percent: float) -> None:
    random = np.random.default_rng(n)
    shown = 0
    for _ in range(600):
        one = difference(*(percentile("ttft", "ms", random.lognormal(4.4, 0.5, n), percent) for _ in range(2)))
        assert one is not None
        assert one.shown is not (one.low <= 0 <= one.high)
        shown += one.shown
    assert shown / 600 <= 0.07


def test_a_shift_of_a_fifth_is_found() -> None:
    random = np.random.default_rng(2)
    found = 0
    for _ in range(200):
        before, after = (percentile("ttft", "ms", factor * random.lognormal(4.4, 0.3, 200), 50) for factor in (1.0, 1.2))
        one = difference(before, after)
        assert one is not None
        found += one.shown and one.value > 0
    assert found / 200 > 0.98


@pytest.mark.parametrize("percent", [50, 90])
def test_intervals_of_differences_cover_the_true_one(percent: float) -> None:
    random = np.random.default_rng(9)
    true = float(np.percentile(random.lognormal(4.4, 0.5, 400_000), percent)) * 0.3
    covered = 0
    for _ in range(600):
        one = difference(*(percentile("", "ms", factor * random.lognormal(4.4, 0.5, 120), percent) for factor in (1.0, 1.3)))
        assert one is not None
        covered += one.low <= true <= one.high
    assert 0.935 <= covered / 600 <= 0.995


def test_of_shares_it_is_newcombes() -> None:
    """Newcombe 1998, table II, method 10 without continuity correction: 56/70 and 48/80."""
    one = difference(share("good_share", 48, 80), share("good_share", 56, 70))
    assert one is not None
    assert (one.value, one.low, one.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(st.lists(st.floats(1, 1e4), min_size=30, max_size=60), st.lists(st.floats(1, 1e4), min_size=30, max_size=60))
@settings(max_examples=50, deadline=None)
def test_what_is_shown_excludes_0_and_turns_around(a: list[float], b: list[float]) -> None:
    there, back = (difference(percentile("", "ms", one, 90), percentile("", "ms", two, 90)) for one, two in ((a, b), (b, a)))
    assert there is not None
    assert back is not None
    assert there.low <= there.value <= there.high
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    if there.shown:
        assert there.low > 0 or there.high < 0


def test_what_has_no_interval_has_no_difference() -> None:
    few, many = percentile("", "ms", range(20), 95), percentile("", "ms", range(200), 95)
    assert difference(few, many) is None
    assert difference(many, few) is None


def test_many_comparisons_are_allowed_for() -> None:
    def of(p: float) -> Difference:
        return Difference("ttft_p50", "ms", 1, 2, 1, 0.1, 1.9, 9, 9, p, p <= 0.05)

    shown = [one.shown for one in allowed_for([of(0.04), of(0.001), of(0.03), of(0.012)])]
    assert shown == [False, True, False, True]  # Holm: 0.001 against 0.05/4, 0.012 against 0.05/3, 0.03 against 0.05/2
    assert [one.shown for one in allowed_for([of(0.04)])] == [True]


def test_runs_that_are_alike_are_rarely_told_apart() -> None:
    """All six figures at two loads at once: in at most 5 % of comparisons is any of them shown, and 200 are few to say so."""
    wrong = 0
    for seed in range(0, 96, 4):
        found = compare(
            side("a", poisson(seed), poisson(seed + 1, rate=8)), side("b", poisson(seed + 2), poisson(seed + 3, rate=8))
        )
        wrong += any(one.judgement is not Judgement.SAME for one in verdicts(found))
    assert wrong <= 4


def test_a_faster_engine_is_said_to_be() -> None:
    verdict = only(side("F32", poisson(1, median_ms=100)), side("Q4_0", poisson(2, median_ms=80)))
    assert verdict.judgement is Judgement.BETTER
    assert verdict.words.startswith("Q4_0 is faster than F32 at poisson 4/s: TTFT from schedule p50 ")
    assert " ms lower (" in verdict.words
    turned = only(side("Q4_0", poisson(2, median_ms=80)), side("F32", poisson(1, median_ms=100)))
    assert turned.judgement is Judgement.WORSE
    assert turned.words.startswith("F32 is slower than Q4_0 at poisson 4/s: TTFT from schedule p50 ")


def test_no_difference_says_how_large_one_might_be() -> None:
    verdict = only(side("a", poisson(1)), side("b", poisson(2)))
    assert verdict.judgement is Judgement.SAME
    assert verdict.words.startswith("no difference between a and b is shown at poisson 4/s: TTFT from schedule p50 -")


def test_better_in_one_thing_and_worse_in_another() -> None:
    slower_tokens = [replace(one, ended_ns=one.ended_ns + 60_000_000) for one in poisson(2, median_ms=80)]
    verdict = only(side("a", poisson(1, median_ms=100)), side("b", slower_tokens))
    assert verdict.judgement is Judgement.MIXED
    assert "b is better than a in one thing and worse in another" in verdict.words


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            side("b", poisson(2), workload=WORKLOAD | {"output_tokens": 64}),
            "a and b can't be compared: they were asked for different things (workload: output_tokens)",
        ),
        (
            side("b", stages=[summarise(stage(poisson(2), LoadPoint("closed", concurrency=4)), None)]),
            "a and b can't be compared: they were measured at no equal load: a at poisson 4/s; b at closed 4",
        ),
        (
            side("b", stages=[summarise(stage(poisson(2), health=replace(HEALTHY, cpu_share=0.99)), None)]),
            "a and b can't be compared at poisson 4/s: b isn't valid there: the client used 99% of its core: it may be what was measured",
        ),
        (
            side("b", poisson(2, 5)),
            "a and b can't be compared at poisson 4/s: too few requests (5) for an interval of any time",
        ),
        (side("b"), "a and b can't be compared: they were measured at no equal load: a at poisson 4/s; b at none"),
    ],
)
def test_what_cannot_be_compared_says_why(other: Side, words: str) -> None:
    verdict = only(side("a", poisson(1)), other)
    assert verdict.judgement is Judgement.CANNOT
    assert verdict.words == words


def test_latencies_of_the_fast_ones_alone_are_not_compared() -> None:
    half = [replace(one, outcome=Outcome.CANCELLED) if one.number % 4 == 0 else one for one in poisson(2, median_ms=40)]
    (pair,) = compare(side("a", poisson(1)), side("b", half)).pairs
    assert [one.name for one in pair.differences] == ["good_share", "output_tokens_per_s"]


def test_goodput_of_other_targets_is_not_compared() -> None:
    (pair,) = compare(side("a", poisson(1)), side("b", poisson(2), target={"ttft_ms": 90.0})).pairs
    assert "good_share" not in {one.name for one in pair.differences}


def test_stages_that_repeat_are_the_unit() -> None:
    """Each stage has a pace of its own, as machines have: by requests the runs differ, by stages they don't."""

    def run(name: str, medians: Sequence[float]) -> Side:
        load = LoadPoint("poisson", rate=4)
        return Side(name, WORKLOAD, None, [summarise(stage(poisson(i, median_ms=m), load), None) for i, m in enumerate(medians)])

    repeated = compare(run("a", (80, 100, 90, 95)), run("b", (100, 85, 92, 104)))
    (pair,) = repeated.pairs
    assert {one.n_now for one in pair.differences} == {4}
    assert not any(one.shown for one in pair.differences if one.name.startswith("ttft"))
    single = compare(run("a", (80,)), run("b", (100,)))
    assert any(one.shown for one in single.pairs[0].differences if one.name.startswith("ttft"))


def test_stages_that_are_not_valid_are_left_out() -> None:
    good, bad = (
        summarise(stage(poisson(2, median_ms=m), health=replace(HEALTHY, cpu_share=c)), None) for m, c in ((80, 0.2), (20, 0.99))
    )
    verdict = only(side("a", poisson(1), target=None), Side("b", WORKLOAD, None, [good, bad]))
    assert verdict.judgement is Judgement.SAME


def test_more_tokens_a_second_are_better() -> None:
    more = Difference.of("output_tokens_per_s", "tokens/s", 100, 130, down=10, up=10, n_base=99, n_now=99)
    first, second = (
        Comparison("a", "b", (Pair("closed 4", (one,)),)) for one in (more, replace(more, value=-30, low=-40, high=-20))
    )
    assert verdicts(first) == (
        Verdict("closed 4", Judgement.BETTER, "b is faster than a at closed 4: output tokens/s 30 higher (20 to 40)"),
    )
    assert verdicts(second)[0].judgement is Judgement.WORSE


def test_what_is_better_is_known_of_each_figure() -> None:
    more = {name for name in DEFINITIONS if larger_is_better(name)}
    assert more == {
        "requests_per_s", "good_requests_per_s", "input_tokens_per_s", "cached_tokens_per_s", "output_tokens_per_s", "good_share",
    }  # fmt: skip


def figure(value: float, half: float = 2, name: str = "ttft_p50") -> Figure:
    return Figure(name, "ms", value, value - half, value + half, 200, "made")


@pytest.mark.parametrize(
    ("before", "now", "regressed"),
    [
        ([100], 125, True),
        ([100], 108, False),  # by less than is allowed
        ([100], 80, False),  # better
        ([90, 100], 125, True),
        ([100, 101, 99, 100], 125, True),
        ([100, 140, 70, 120], 125, False),  # runs differ as much
        ([100, 100, 100], 111, True),
    ],
)
def test_regressions_against_one_run_and_against_many(before: list[float], now: float, regressed: bool) -> None:
    found = regression([figure(value) for value in before], figure(now), 10)
    assert found is not None
    assert found.regressed is regressed
    assert found.runs == len(before)


def test_a_regression_by_chance_is_none() -> None:
    found = regression([figure(100, half=30)], figure(125, half=30), 10)
    assert found is not None
    assert not found.regressed
    assert found.words == "TTFT p50: no difference from the last run is shown (-17.4 to 67.4 ms)"


def test_less_throughput_is_worse() -> None:
    found = regression([figure(1_000, 20, "output_tokens_per_s")], figure(700, 20, "output_tokens_per_s"), 10)
    assert found is not None
    assert found.regressed
    assert found.worse_percent == pytest.approx(30)
    assert found.words == "output tokens/s 300 lower (272 to 328) than in the last run: 30 % worse"


def test_nothing_to_hold_it_against() -> None:
    assert regression([], figure(100), 10) is None
    assert regression([replace(figure(1), value=None)], figure(100), 10) is None
    assert regression([figure(100)], replace(figure(1), value=None), 10) is None


def test_regressions_of_runs_that_are_alike_are_rare() -> None:
    """Runs vary by 5 % among themselves, which no interval of a single one shows."""
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        paces = random.normal(80, 4, 6)
        runs = [percentile("ttft_p50", "ms", pace * random.lognormal(0, 0.3, 200), 50) for pace in paces]
        found = regression(runs[:-1], runs[-1], 0)
        assert found is not None
        wrong += found.regressed
    assert wrong / 400 <= 0.04


def test_of_several_figures_chance_is_allowed_for() -> None:
    def run(*values: float) -> dict[str, Figure]:
        return {f"f{i}": Figure(f"f{i}", "ms", value, value - 10, value + 10, 99, "made") for i, value in enumerate(values)}

    names = [f"f{i}" for i in range(4)]
    found = regressions([run(100, 100, 100, 100)], run(115, 100, 100, 100), 5, names)
    assert [one.regressed for one in found] == [False] * 4
    (alone,) = regressions([run(100)], run(115), 5, names)
    assert alone.regressed


def test_means_over_runs_need_no_requests() -> None:
    figures = [mean("ttft_p50", "ms", values) for values in ([80, 82, 81], [60, 62, 61])]
    one = difference(*figures)
    assert one is not None
    assert one.shown
    assert one.percent == pytest.approx(-24.7, abs=0.1)
