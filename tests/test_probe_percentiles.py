"""Percentiles say what carries them, and their intervals hold the truth as often as they claim."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.probes.figures.percentiles import (
    PERCENTS,
    clustered_percentile,
    fewest,
    interval_ranks,
    mean,
    percentile,
    share,
    student,
)

times = st.floats(0.1, 1e6, allow_nan=False)


@pytest.mark.parametrize(("percent", "needs"), [(50, 6), (90, 29), (95, 59), (99, 299)])
def test_what_n_does_not_carry_is_none_and_says_what_it_takes(percent: float, needs: int) -> None:
    few = percentile("ttft", "ms", range(needs - 1), percent)
    assert (
        (few.value, few.low, few.high, few.n, few.needs)
        == (None, None, None, needs - 1, needs)
        == (*(None,) * 3, *(needs - 1, fewest(percent)))
    )
    enough = percentile("ttft", "ms", range(needs), percent)
    assert enough.value is not None
    assert enough.needs is None


def test_ranks_are_those_of_the_binomial_distribution() -> None:
    for n, percent in ((6, 50), (10, 50), (100, 50), (100, 90), (100, 95), (1_000, 99)):
        ranks = interval_ranks(n, percent)
        assert ranks is not None
        low, high = ranks
        p = percent / 100
        covered = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(low, high))
        narrower = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(low + 1, high))
        assert narrower < 0.95 <= covered
    assert interval_ranks(100, 50) == (41, 61)
    assert interval_ranks(100, 99) is None


@pytest.mark.parametrize(("n", "percent"), [(8, 50), (60, 50), (60, 90), (150, 95), (400, 99)])
def test_intervals_cover_the_truth(n: int, percent: float) -> None:
    random = np.random.default_rng(n)
    true = math.exp(NormalDist().inv_cdf(percent / 100))
    covered = 0
    for _ in range(1_000):
        figure = percentile("ttft", "ms", random.lognormal(size=n), percent)
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= true <= figure.high
    assert 0.935 <= covered / 1_000 <= 0.99


def test_intervals_of_gaps_vary_with_requests_not_with_gaps() -> None:
    """Streams of different pace: gaps of one stream tell little of another's, so an interval by gaps would be far too narrow."""
    random = np.random.default_rng(5)
    covered, widths = 0, []
    for _ in range(400):
        paces, sizes = random.lognormal(math.log(10), 0.3, 60), random.integers(2, 60, 60)
        streams = [(pace * random.uniform(0.9, 1.1, size)).tolist() for pace, size in zip(paces, sizes, strict=True)]
        figure = clustered_percentile("icl_p50", "ms", streams, 50)
        assert figure.low is not None
        assert figure.high is not None
        assert figure.n == sizes.sum()
        covered += figure.low <= 10 <= figure.high
        by_gaps = percentile("", "ms", [gap for stream in streams for gap in stream], 50)
        assert by_gaps.low is not None
        assert by_gaps.high is not None
        widths.append((figure.high - figure.low) / (by_gaps.high - by_gaps.low))
    assert 0.92 <= covered / 400 <= 0.985
    assert np.median(widths) > 3


def test_streams_that_are_alike_but_for_their_length_leave_no_doubt() -> None:
    streams = [[float(gap) for gap in range(10)] * size for size in range(1, 30)]
    figure = clustered_percentile("icl_p50", "ms", streams, 50)
    assert figure.value == 4.5
    assert figure.low == figure.high == 4.5


def test_gaps_of_few_streams_carry_nothing() -> None:
    assert clustered_percentile("icl_p50", "ms", [[1.0] * 500] * 5, 50).value is None
    assert clustered_percentile("icl_p50", "ms", [[], []], 50).n == 0


@given(st.lists(times, min_size=300, max_size=400))
@settings(max_examples=50, deadline=None)
def test_percentiles_ascend_and_lie_within_their_intervals(values: list[float]) -> None:
    figures = [percentile("", "ms", values, percent) for percent in PERCENTS]
    known = [figure.value for figure in figures if figure.value is not None]
    assert len(known) == len(PERCENTS)
    assert known == sorted(known)
    for figure in figures:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.value is not None
        assert figure.low <= figure.value <= figure.high


@given(st.lists(times, min_size=60, max_size=90), st.sampled_from([0.5, 2.0, 1024.0]), st.randoms())
@settings(max_examples=50, deadline=None)
def test_units_scale_and_order_says_nothing(values: list[float], factor: float, random: object) -> None:
    figure = percentile("", "ms", values, 90)
    mixed = [value * factor for value in values]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    scaled = percentile("", "ms", mixed, 90)
    assert figure.value is not None
    assert figure.low is not None
    assert scaled.value == pytest.approx(figure.value * factor)
    assert scaled.low == pytest.approx(figure.low * factor)


def test_students_t_is_the_tabled_one() -> None:
    for degrees, t in ((1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1_000, 1.962)):
        assert student(degrees) == pytest.approx(t, rel=2e-3)


def test_mean_covers_the_truth() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(1_000):
        figure = mean("ttft_mean", "ms", random.normal(80, 10, 12))
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= 80 <= figure.high
    assert 0.93 <= covered / 1_000 <= 0.97
    assert mean("", "ms", [4.0]).value is None


@given(st.integers(1, 500), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_share_and_its_interval_stay_between_0_and_1(of: int, part: float) -> None:
    figure = share("good_share", round(part * of), of)
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.high > figure.low


def test_a_share_of_all_is_not_certain() -> None:
    figure = share("good_share", 100, 100)
    assert figure.low == pytest.approx(0.963, abs=1e-3)  # Brown, Cai and DasGupta 2001, (1 + z²/n)^-1
    assert share("good_share", 0, 0).value is None
