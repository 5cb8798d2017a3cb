"""Sweeps over engines whose capacity is known: what is found is there, and nothing is found that isn't."""

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tallystick.probes.config import Load, Target
from tallystick.probes.load.sweep import KEEPS_UP, RESOLUTION, Reached, highest_good, knee, next_point
from tallystick.probes.records import LoadPoint

TARGET = Target(ttft_ms=500, share=0.95)


@dataclass(frozen=True)
class Engine:
    """Answers up to `capacity` a second, one after another at `alone`; in time below `in_time`. client: what the client can send."""

    capacity: float
    alone: float
    in_time: float
    client: float = float("inf")

    def measured(self, load: LoadPoint) -> Reached:
        rate = load.rate if load.rate is not None else self.alone
        good = 1.0 if (rate <= self.in_time or (load.rate is None and self.in_time > 0)) else 0.5
        achieved = min(rate, self.capacity)
        return Reached(load, good, achieved, achieved * 100, rate <= self.client)


def swept(engine: Engine, load: Load, target: Target = TARGET) -> list[Reached]:
    done: list[Reached] = []
    while (point := next_point(done, load, target)) is not None:
        done.append(engine.measured(point))
        assert len(done) <= load.stages
    return done


def load(stages: int = 8, rates: tuple[float, ...] = ()) -> Load:
    return Load(kind="sweep", stages=stages, rates=rates)


def at(rate: float, good: float = 1.0, achieved: float | None = None, valid: bool = True) -> Reached:
    return Reached(LoadPoint("poisson", rate=rate), good, rate if achieved is None else achieved, 0, valid)


@given(st.floats(0.01, 1000), st.floats(1, 300), st.floats(0.02, 1.2), st.integers(3, 30))
def test_the_highest_rate_is_never_above_what_the_engine_can(alone: float, batching: float, share: float, stages: int) -> None:
    engine = Engine(capacity=alone * batching, alone=alone, in_time=alone * batching * share)
    done = swept(engine, load(stages))
    found = highest_good(done, TARGET)
    if found.rate is not None:
        assert found.rate <= min(engine.in_time, engine.capacity / KEEPS_UP) * 1.001
    assert found.rate is not None or found.note


@given(st.floats(0.01, 100), st.floats(1, 300), st.floats(0.02, 1.0))
def test_with_stages_enough_it_is_within_the_resolution(alone: float, batching: float, share: float) -> None:
    engine = Engine(capacity=alone * batching, alone=alone, in_time=alone * batching * share)
    found = highest_good(swept(engine, load(30)), TARGET)
    assert found.rate is not None
    # Where the queue's growth is what ends it, nothing is looked for beyond the capacity that was seen.
    assert found.rate >= engine.in_time / RESOLUTION * 0.999
    assert found.reached is not None
    assert found.reached.load.rate == found.rate


@given(st.floats(1, 300), st.integers(9, 30))
def test_the_knee_is_near_the_capacity(batching: float, stages: int) -> None:
    done = swept(Engine(capacity=batching, alone=1, in_time=batching), load(stages))
    seen = knee(done)
    if seen is None:
        assert all(one.achieved_rate >= KEEPS_UP * one.load.rate for one in done if one.load.rate)
    else:
        assert batching / 2 <= seen <= batching * 2


@given(st.integers(0, 2**32), st.integers(3, 30))
def test_any_noise_ends_within_the_stages(seed: int, stages: int) -> None:
    random = Random(seed)
    done: list[Reached] = []
    while (point := next_point(done, load(stages), TARGET)) is not None:
        rate = point.rate or random.uniform(0, 3)
        done.append(Reached(point, random.random() ** 0.1, rate * random.random(), 1, random.random() > 0.1))
        assert len(done) <= stages
    found = highest_good(done, TARGET)
    tried = [one for one in done if one.load.rate is not None and found.rate is not None and one.load.rate <= found.rate]
    assert all(one.valid and one.good_share >= TARGET.share for one in tried)
    rates = [one.load.rate for one in done if one.load.rate is not None]
    assert len(set(rates)) == len(rates)


def test_a_sweep_step_by_step() -> None:
    done = swept(Engine(capacity=50, alone=1, in_time=5.2), load(10))
    assert [one.load.name for one in done] == [
        "closed 1", "poisson 1/s", "poisson 2/s", "poisson 4/s", "poisson 8/s",
        "poisson 5.657/s", "poisson 4.757/s", "poisson 5.188/s", "poisson 16/s", "poisson 32/s",
    ]  # fmt: skip
    found = highest_good(done, TARGET)
    assert (found.rate, found.below, found.note) == (5.188, 5.657, "")
    assert knee(done) is None


def test_rates_that_are_given_come_first() -> None:
    done = swept(Engine(capacity=50, alone=1, in_time=21), load(6, rates=(10, 3, 30)))
    assert [one.load.rate for one in done] == [3, 10, 30, 17.32, 22.79, 19.87]


def test_an_engine_that_shows_its_capacity_is_looked_at_there() -> None:
    done = swept(Engine(capacity=9, alone=1, in_time=9), load(8))
    assert [one.load.rate for one in done[:6]] == [None, 1, 2, 4, 8, 16]
    assert done[6].load.rate == 8.695
    assert len(done) == 7
    assert knee(done) in (8, 8.695)


def test_a_first_rate_that_misses_is_halved() -> None:
    done = swept(Engine(capacity=10, alone=10, in_time=3), load(5))
    assert [one.load.rate for one in done] == [None, 10, 5, 2.5, 3.536]
    assert highest_good(done, TARGET).rate == 2.5


def test_an_engine_too_slow_for_one() -> None:
    done = swept(Engine(capacity=10, alone=1, in_time=0), load(8))
    assert [one.load.rate for one in done] == [None, 1, 2, 4, 8, 16]
    found = highest_good(done, TARGET)
    assert (found.rate, found.note) == (None, "Not even one request at a time is within the target.")
    assert knee(done) == 8


def test_a_first_stage_that_cannot_be_trusted_settles_nothing() -> None:
    alone = Reached(LoadPoint("closed", concurrency=1), 0.2, 8.0, 0, valid=False)
    assert next_point([alone], load(), TARGET) == LoadPoint("poisson", rate=8)
    assert next_point([alone, at(8, good=0.3)], load(), TARGET) == LoadPoint("poisson", rate=4)
    assert highest_good([alone, at(8, good=0.3)], TARGET).note == "No rate that was tried is within the target."


def test_a_client_that_cannot_keep_up_ends_the_rise() -> None:
    found = highest_good(swept(Engine(capacity=1000, alone=1, in_time=1000, client=20), load(8)), TARGET)
    assert found.rate is not None
    assert found.rate <= 20
    assert found.note == f"The stage at {found.below:g}/s can't be trusted: the highest may lie above."


def test_what_is_met_above_a_miss_does_not_count() -> None:
    found = highest_good([at(1), at(2, good=0.9), at(4)], TARGET)
    assert (found.rate, found.below) == (1, 2)
    assert found.note == "4/s met the target though 2/s didn't: one of them by chance, and the lower counts."


def test_in_time_with_a_growing_queue_is_not_met() -> None:
    found = highest_good([at(4), at(8, achieved=5)], TARGET)
    assert (found.rate, found.below) == (4, 8)
    assert found.note == "At 8/s requests were in time, but the engine answered 5/s: a queue grew."


def test_chance_in_what_was_offered_is_no_overload() -> None:
    """Of 20 Poisson arrivals at 4/s there came 3/s, and the engine answered them all."""
    lucky = Reached(LoadPoint("poisson", rate=4), 1.0, 3.0, 0, True, offered_rate=3.05)
    assert highest_good([lucky], TARGET).rate == 4
    assert highest_good([lucky._replace(offered_rate=None)], TARGET).rate is None


def test_nothing_at_all() -> None:
    assert highest_good([], TARGET).note == "No rate was tried."
    assert knee([]) is None
    assert next_point([Reached(LoadPoint("closed", concurrency=1), 0, 0, 0, True)], load(), TARGET) is None
    assert knee([at(1, achieved=0), at(2, achieved=0)]) is None
