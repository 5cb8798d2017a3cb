"""How much is asked: distributions without spikes, cuts that are told, shared beginnings, and the four groups of a cache experiment."""

from collections import Counter
from random import Random
from statistics import NormalDist, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.probes.config import Feature, Spread, Workload
from tallystick.probes.load.sizes import CONTROL, INTERLEAVED, WARM, Drawn, draw, sizes
from tallystick.probes.load.traffic_mix import Call

CALLS = [Call(at_ns=1000 + 10 * at, input_tokens=100 + at, cached_tokens=at, output_tokens=at % 7) for at in range(50)]


def drawn(workload: Workload, count: int = 40, calls: list[Call] | None = None, **options: int | bool | None) -> Drawn:
    return sizes(workload, count, 7, calls, **options)  # type: ignore[arg-type]


def synthetic(**rest: object) -> Workload:
    return Workload.model_validate({"input_tokens": 500, "output_tokens": 60, **rest})


def test_fixed_lengths() -> None:
    found = drawn(synthetic(), warmup=3)
    assert {(size.input_tokens, size.output_tokens, size.prefix, size.group, size.at_ns) for size in found.sizes} == {
        (500, 60, None, "", None)
    }
    assert (len(found.sizes), found.notes) == (43, ())


def test_uniform_is_uniform() -> None:
    random = Random(1)
    found = Counter(draw(Spread(min=3, max=12), random) for _ in range(20_000))
    assert set(found) == set(range(3, 13))
    assert max(found.values()) < 1.15 * min(found.values())


def test_a_normal_that_is_cut_has_no_spikes() -> None:
    random = Random(2)
    spread = Spread(mean=100, stdev=30, min=80, max=150)
    found = Counter(draw(spread, random) for _ in range(60_000))
    normal = NormalDist(100, 30)
    inside = normal.cdf(150.5) - normal.cdf(79.5)
    assert set(found) == set(range(80, 151))
    for tokens in (80, 81, 100, 149, 150):
        expected = 60_000 * (normal.cdf(tokens + 0.5) - normal.cdf(tokens - 0.5)) / inside
        assert found[tokens] == pytest.approx(expected, abs=5 * expected**0.5)
    # Only at 1 where no other end is given.
    assert fmean(draw(Spread(mean=1000, stdev=50), random) for _ in range(5000)) == pytest.approx(1000, abs=4)


@given(st.integers(1, 5000), st.floats(0, 5000), st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 2**32 - 1))
def test_no_length_is_outside(mean: int, stdev: float, low: int, more: int, seed: int) -> None:
    spread = Spread(mean=mean, stdev=stdev, min=low, max=low + more)
    random = Random(seed)
    assert all(low <= draw(spread, random) <= low + more for _ in range(5))
    assert draw(Spread(mean=mean, stdev=stdev), random) >= 1


def test_the_same_seed_draws_the_same() -> None:
    workload = synthetic(
        input_tokens={"mean": 500, "stdev": 100}, output_tokens={"min": 5, "max": 50}, prefix={"tokens": 64, "distinct": 3}
    )
    assert drawn(workload) == drawn(workload)
    assert sizes(workload, 40, 8) != drawn(workload)
    # Lengths don't hang on whether there are prefixes.
    bare = synthetic(input_tokens={"mean": 500, "stdev": 100}, output_tokens={"min": 5, "max": 50})
    assert [size[:2] for size in drawn(bare).sizes] == [size[:2] for size in drawn(workload).sizes]


def test_calls_of_a_feature_for_their_mix() -> None:
    found = drawn(Workload(ledger=Feature()), 10, CALLS)
    assert [size.input_tokens for size in found.sizes] == [100, 105, 110, 115, 120, 125, 130, 135, 140, 145]
    assert [size.output_tokens for size in found.sizes] == [1, 5, 3, 1, 6, 4, 2, 1, 5, 3]
    assert [(size.prefix, size.prefix_tokens) for size in found.sizes[:3]] == [(None, 0), (0, 5), (0, 10)]


def test_calls_of_a_feature_as_they_came() -> None:
    found = drawn(Workload(ledger=Feature()), 60, CALLS, warmup=2, as_they_came=True)
    assert [size.at_ns for size in found.sizes] == [10 * at for at in range(62)]
    assert found.sizes[50].input_tokens == 100
    assert found.notes == ("there are 50 calls for 62 requests: they are sent again, with prompts of their own",)
    with pytest.raises(ValueError, match="no call"):
        drawn(Workload(ledger=Feature()), 5, [])


def test_what_is_cut_is_told() -> None:
    workload = Workload(ledger=Feature(), most_input_tokens=130, most_output_tokens=3)
    found = drawn(workload, 50, CALLS, context=120)
    assert found.notes == (
        "21 of 50 requests: outputs cut to 3 tokens (most_output_tokens)",
        "19 of 50 requests: prompts cut to 130 tokens (most_input_tokens)",
        "32 of 50 requests: cut to the engine's context of 120 tokens, in and out together",
    )
    assert all(size.input_tokens + size.output_tokens <= 120 for size in found.sizes)
    # The share that a cache held is kept.
    assert found.sizes[40].prefix_tokens == pytest.approx(found.sizes[40].input_tokens * 40 / 140, abs=2)


@given(st.integers(2, 100), st.integers(1, 200), st.integers(1, 200))
def test_any_context_has_room_for_what_is_asked(context: int, prompt: int, output: int) -> None:
    workload = synthetic(input_tokens=prompt, output_tokens=output, prefix={"tokens": 64})
    for size in drawn(workload, 5, context=context).sizes:
        assert size.input_tokens >= 1
        assert size.output_tokens >= 1
        assert size.input_tokens + size.output_tokens <= context
        assert size.prefix_tokens < size.input_tokens


def test_shared_beginnings() -> None:
    found = drawn(synthetic(prefix={"tokens": 256, "share": 0.5, "distinct": 4}), 4000, warmup=6)
    assert [size.prefix for size in found.sizes[:6]] == [0, 1, 2, 3, 0, 1]
    counted = Counter(size.prefix for size in found.sizes[6:])
    assert counted[None] == pytest.approx(2000, abs=150)
    assert all(counted[prefix] == pytest.approx(500, abs=100) for prefix in range(4))
    assert {size.prefix_tokens for size in found.sizes} == {0, 256}


def test_a_prefix_longer_than_its_prompt() -> None:
    found = drawn(synthetic(prefix={"tokens": 500}), 4)
    assert {size.prefix_tokens for size in found.sizes} == {499}
    assert found.notes == ("4 of 4 requests: the shared prefix cut to all but the last token of the prompt",)


@given(st.integers(0, 60), st.integers(1, 10), st.integers(0, 5))
def test_the_cache_experiment(count: int, distinct: int, warmup: int) -> None:
    workload = synthetic(input_tokens={"min": 300, "max": 900}, prefix={"tokens": 256, "distinct": distinct, "experiment": True})
    whole = drawn(workload, count, warmup=warmup).sizes
    found, each = whole[warmup:], count // 4
    assert not any(size.prefix_tokens or size.group for size in whole[:warmup])
    groups = Counter(size.group for size in found)
    assert groups == Counter(
        {name: each for name in ("cold", "warm", "interleaved", "control") if each} | ({"": count % 4} if count % 4 else {})
    )
    seen: set[int | None] = set()
    for size in found[: 4 * each]:
        assert (size.prefix in seen) == (size.group in (WARM, INTERLEAVED)), "what was seen before is warm"
        seen.add(size.prefix)
    # In turns, so that what slows the engine down slows both; and position by position of one length.
    turns = [size.group for size in found[2 * each : 4 * each]]
    assert turns == [INTERLEAVED, CONTROL] * each
    lengths = {name: [size.input_tokens for size in found if size.group == name] for name in groups if name}
    assert len({tuple(one) for one in lengths.values()}) <= 1
