"""What an hour costs, what share of it a token has, and the price that comes of both."""

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.probes.config import Cost
from tallystick.probes.money.cost_split import STATED, Split, Timed, split
from tallystick.probes.money.hourly_cost import HOURS_A_MONTH, hourly_cost
from tallystick.probes.money.measured_price import BUCKETS, Capacity, NoPrice, measured_price, observed_utilisation
from tallystick.probes.money.power import Reading, joules

CAPACITY = Capacity(2.0, 1000.0, 500.0, 400.0, "poisson 2/s", "TTFT 500 ms for 0.95 of requests")


def cost(**given: Any) -> Cost:
    return Cost.model_validate(given)


def test_rented_by_the_gpu() -> None:
    found = hourly_cost(cost(usd_per_hour="2.50", gpus=4, fixed_usd_per_month="730.5"))
    assert [(share.name, share.usd_per_hour) for share in found.shares] == [("rent", Decimal(10)), ("fixed", Decimal(1))]
    assert found.usd_per_hour == 11
    assert found.usd_per_month == 11 * HOURS_A_MONTH == Decimal("8035.5")


def test_bought_is_written_off_and_draws_power() -> None:
    found = hourly_cost(cost(purchase_usd=35064, years=2, residual_percent=50, watts=1000, pue="1.5", usd_per_kwh="0.20"))
    assert {share.name: share.usd_per_hour for share in found.shares} == {"depreciation": Decimal(1), "energy": Decimal("0.3")}
    assert not found.notes


def test_energy_that_is_not_known_is_said_and_not_nothing() -> None:
    for watts, said in ((None, "`watts` isn't given"), ("nvml", "no NVIDIA GPU could be asked")):
        found = hourly_cost(cost(purchase_usd=35064, watts=watts))
        assert [share.name for share in found.shares] == ["depreciation"]
        assert found.notes == (f"without energy: {said}",)
    measured = hourly_cost(cost(purchase_usd=35064, watts="nvml"), watts=400.0)
    assert measured.shares[1].usd_per_hour == Decimal("0.4") * Decimal("1.3") * Decimal("0.15")


def test_rented_hardware_pays_no_energy() -> None:
    assert [share.name for share in hourly_cost(cost(usd_per_hour=2, watts=700)).shares] == ["rent"]


def test_joules_are_the_area_under_the_power() -> None:
    assert joules([Reading(0, 100.0), Reading(2_000_000_000, 300.0), Reading(3_000_000_000, 300.0)]) == 700.0
    assert joules([Reading(0, 100.0)]) is None


amounts = st.floats(0.001, 1e6, allow_nan=False)


@given(amounts, st.one_of(st.none(), st.floats(0, 1e6)), amounts, st.tuples(*[st.decimals("0.001", 1000, places=3)] * 3),
       st.decimals("0.01", 1, places=4), st.decimals("0.0001", 10_000, places=4))  # fmt: skip
def test_the_measured_mix_comes_to_the_hour(
    uncached: float, cached: float | None, output: float, weights: tuple[Decimal, Decimal, Decimal], used: Decimal, usd: Decimal
) -> None:
    capacity = Capacity(1.0, uncached, cached, output, "closed 1")
    hour = hourly_cost(cost(usd_per_hour=usd))
    price = measured_price(hour, capacity, Split("ratio", weights), utilisation=used, source="given")
    an_hour = {bucket: Decimal(str(rate)) * 3600 * used for bucket, rate in capacity.rates().items()}
    came_to = sum((price.per_million[bucket] * an_hour[bucket] / 1_000_000 for bucket in BUCKETS), Decimal(0))
    assert abs(came_to - hour.usd_per_hour) < Decimal("1e-12")
    whole = price.all_tokens * sum(an_hour.values()) / 1_000_000
    assert abs(whole - hour.usd_per_hour) < Decimal("1e-12")
    for bucket, weight in zip(BUCKETS, weights, strict=True):
        assert abs(price.per_million[bucket] * weights[0] - price.per_million["input"] * weight) < Decimal("1e-6")


def test_the_formula_by_hand() -> None:
    price = measured_price(hourly_cost(cost(usd_per_hour="3.6")), CAPACITY, Split("ratio", STATED))
    # 3.6 USD over 1,900 tokens/s × 3,600 s; weights 1000 × 1 + 500 × 0.1 + 400 × 4 = 2650
    assert round(price.all_tokens, 9) == round(Decimal(1_000_000) / (1900 * 1000), 9)
    assert round(price.per_million["input"], 9) == round(Decimal(1_000_000) / (2650 * 1000), 9)
    half = price.at(Decimal("0.5"), "given")
    assert half.per_million["output"] == pytest.approx(2 * price.per_million["output"])
    assert half.all_tokens_full == price.all_tokens
    assert "50.0% used (given)" in half.definition
    assert "1 : 0.1 : 4" in half.definition


def test_what_no_price_comes_of() -> None:
    hour = hourly_cost(cost(usd_per_hour=1))
    for used in ("0", "1.01", "-1"):
        with pytest.raises(NoPrice, match="utilisation"):
            measured_price(hour, CAPACITY, Split("ratio", STATED), utilisation=Decimal(used))
    with pytest.raises(NoPrice, match="no tokens came"):
        measured_price(hour, Capacity(0, 0, None, 0, "closed 1"), Split("ratio", STATED))


def test_work_is_told_by_its_cost_whatever_the_utilisation() -> None:
    price = measured_price(hourly_cost(cost(usd_per_hour=2)), CAPACITY, Split("ratio", STATED))
    an_hour = {"input": 3_600_000, "cache_read": 1_800_000, "output": 1_440_000}
    for one in (price, price.at(Decimal("0.25"), "given")):
        assert one.engine_hours(an_hour) == pytest.approx(Decimal(1))  # type: ignore[arg-type]
        assert observed_utilisation(one, an_hour, Decimal(10), 2) == pytest.approx(Decimal("0.05"))  # type: ignore[arg-type]


def requests(count: int, a: float, b: float, c: float, *, cached: bool = True, alike: bool = False) -> list[Timed]:
    rng, made = random.Random(7), []
    for _ in range(count):
        uncached, read, output = (
            (500, 100, 200) if alike else (rng.randint(10, 2000), rng.randint(0, 2000) if cached else 0, rng.randint(5, 500))
        )
        before = uncached * a + read * b
        made.append(Timed(uncached, read, output, before * rng.uniform(0.95, 1.05) + 0.01, output * c * rng.uniform(0.95, 1.05)))
    return made


def test_weights_are_found_where_requests_differ() -> None:
    found = split(requests(200, 1e-4, 1e-5, 1e-2))
    assert found.method == "fit"
    assert found.r_squared is not None
    assert found.r_squared > 0.95
    assert float(found.weights[1]) == pytest.approx(0.1, abs=0.1)
    assert float(found.weights[2]) == pytest.approx(100, rel=0.15)
    assert found.low is not None
    assert found.high is not None
    assert found.low[2] < 100 < found.high[2]


def test_a_fit_without_cache_hits_says_what_it_takes_them_for() -> None:
    found = split(requests(200, 1e-3, 0, 1e-2, cached=False))
    assert found.method == "fit"
    assert found.weights[1] == Decimal("0.1")
    assert "taken for 0.1" in found.notes[0]


def test_a_cached_token_that_seems_to_save_time_weighs_nothing() -> None:
    found = split(requests(200, 1e-3, -2e-5, 1e-2))
    assert found.method == "fit"
    assert found.weights[1] == 0


def test_the_first_token_is_made_with_the_prompt() -> None:
    # 100 tokens in a second, and of two tokens the second in another
    assert split([Timed(100, None, 2, 1.0, 1.0)] * 30).weights == (Decimal(1), STATED[1], Decimal(100))


def test_requests_that_are_alike_are_split_by_their_times() -> None:
    found = split(requests(50, 1e-4, 1e-5, 1e-2, alike=True))
    assert found.method == "times"
    # 200 tokens in 2 s of which the first is the prompt's; 510 in 0.061 s, its 10 for a tenth each
    assert float(found.weights[2]) == pytest.approx((2 / 199) / (0.061 / 510), rel=0.1)


def test_times_that_say_nothing_leave_the_stated_ratio() -> None:
    assert split([]).weights == STATED
    assert split([Timed(100, None, 1, 0.1, 0.0)] * 30).method == "ratio"
    assert split(requests(200, 1e-4, 1e-5, 1e-2), stated=(Decimal(2), Decimal(1), Decimal(6))).weights == (
        Decimal(1),
        Decimal("0.5"),
        Decimal(3),
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 5000), st.floats(0, 100), st.floats(0, 100)),
        max_size=60,
    )
)
def test_no_weight_is_negative(rows: list[tuple[int, int, int, float, float]]) -> None:
    found = split([Timed(*row) for row in rows])
    assert all(weight >= 0 for weight in found.weights)
    assert found.weights[0] == 1
