"""When requests are sent: Poisson where it should be, the same again where it should be, and never twice the same."""

from itertools import pairwise
from math import exp, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.probes.load.arrivals import arrivals, replayed

_SECOND = 1_000_000_000


def gaps(times: tuple[int, ...]) -> list[float]:
    return [(late - early) / _SECOND for early, late in pairwise((0, *times))]


def p_value(statistic: float, n: int) -> float:
    """Of a Kolmogorov-Smirnov statistic: Kolmogorov's distribution, with Stephens' correction (1970) for n."""
    scaled = statistic * (sqrt(n) + 0.12 + 0.11 / sqrt(n))
    terms = (2 * (-1) ** (k - 1) * exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms))) if scaled > 0.2 else 1.0


def distance(values: list[float], below: list[float]) -> float:
    """The largest difference between the shares of `values` up to each and what a distribution says, given as its share below each."""
    n = len(values)
    return max(max((at + 1) / n - share, share - at / n) for at, share in enumerate(below))


def against_exponential(times: tuple[int, ...], rate: float) -> float:
    values = sorted(gaps(times))
    return p_value(distance(values, [1 - exp(-rate * gap) for gap in values]), len(values))


def test_poisson_arrivals_pass_kolmogorov_smirnov() -> None:
    """Over many seeds and stages the p-values themselves are uniform: neither too far from the exponential nor too near."""
    found = sorted(
        against_exponential(arrivals("poisson", 4.0, 2000, seed, stage), 4.0) for seed in range(50) for stage in range(4)
    )
    assert p_value(distance(found, found), len(found)) > 0.001
    assert found[0] > 1e-5


def test_the_test_would_see_it() -> None:
    """What isn't Poisson, and what is at a rate that is a tenth off."""
    assert against_exponential(arrivals("constant", 4.0, 2000, 1), 4.0) < 1e-9
    assert against_exponential(arrivals("poisson", 4.4, 2000, 1), 4.0) < 0.01


def test_gaps_do_not_depend_on_each_other() -> None:
    drawn = gaps(arrivals("poisson", 1.0, 20_000, 7))
    mean = sum(drawn) / len(drawn)
    apart = [(one - mean) * (other - mean) for one, other in pairwise(drawn)]
    assert abs(sum(apart) / sum((one - mean) ** 2 for one in drawn)) < 4 / sqrt(len(drawn))
    assert abs(mean - 1) < 4 / sqrt(len(drawn))


def test_each_stage_has_its_own() -> None:
    schedules = [arrivals("poisson", 2.0, 50, 5, stage) for stage in range(30)]
    assert schedules == [arrivals("poisson", 2.0, 50, 5, stage) for stage in range(30)]
    every = [gap for schedule in schedules for gap in gaps(schedule)]
    assert len(set(every)) == len(every)
    assert arrivals("poisson", 2.0, 50, 6) != schedules[0]


@given(st.sampled_from(["constant", "poisson"]), st.floats(0.001, 100_000), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_times_never_descend(kind: str, rate: float, count: int, seed: int) -> None:
    times = arrivals("constant" if kind == "constant" else "poisson", rate, count, seed)
    assert len(times) == count
    assert all(0 <= early <= late for early, late in pairwise(times))


def test_constant_is_constant() -> None:
    assert arrivals("constant", 4.0, 5, 1) == (0, 250_000_000, 500_000_000, 750_000_000, 1_000_000_000)
    assert arrivals("constant", 3.0, 300_001, 1)[-1] == 100_000 * _SECOND


@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=50).map(sorted), st.floats(0.01, 1000))
def test_a_trace_keeps_its_form(times: list[int], rate: float) -> None:
    as_it_was = replayed(times, None)
    assert as_it_was == tuple(at - times[0] for at in times)
    stretched = replayed(times, rate)
    assert stretched[0] == 0
    assert all(early <= late for early, late in pairwise(stretched))
    if as_it_was[-1]:
        assert (len(times) - 1) / (stretched[-1] / _SECOND) == pytest.approx(rate, rel=1e-6)
        assert [at / stretched[-1] for at in stretched] == pytest.approx([at / as_it_was[-1] for at in as_it_was], abs=1e-6)


def test_a_trace_of_one_moment() -> None:
    assert replayed([], 3.0) == ()
    assert replayed([7], 3.0) == (0,)
    assert replayed([7, 7], 3.0) == (0, 0)
