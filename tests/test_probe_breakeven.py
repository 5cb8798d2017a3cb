"""From which utilisation and volume on own engines are cheaper, by hand and by what must hold for any figures."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import read_prices
from tallystick.probes.config import Cost
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.money.breakeven import ApiModel, BreakEven, breakeven
from tallystick.probes.money.cost_split import STATED, Split
from tallystick.probes.money.fleet import Need, fleet
from tallystick.probes.money.hourly_cost import HOURS_A_MONTH, hourly_cost
from tallystick.probes.money.measured_price import Capacity, MeasuredPrice, measured_price
from tallystick.probing.api_prices import api_models
from tallystick.probing.mix import SHIPPED, trace_calls

D = Decimal
ONE = D(1)
HOUR = 3600 * 10**9
NOW = datetime(2026, 11, 21, tzinfo=UTC)

ENGINE = Capacity(1.0, 1000.0, 0.0, 250.0, "poisson 1/s", "TTFT 500 ms for 0.95 of requests")
"""One call of 1,000 in and 250 out a second."""


def price(usd: str = "3.6", capacity: Capacity = ENGINE) -> MeasuredPrice:
    return measured_price(hourly_cost(Cost.model_validate({"usd_per_hour": usd})), capacity, Split("ratio", STATED))


def api(a_call: str, name: str = "lab/a") -> ApiModel:
    return ApiModel(name, lambda _: D(a_call), "id")


def day(count: int = 24, *, burst: int = 0) -> list[Call]:
    """So many calls over a day, and a burst in its first hour."""
    calls = [Call(at * 24 * HOUR // count, 1000, 0, 250) for at in range(count)]
    return calls + [Call(at, 1000, 0, 250) for at in range(burst)]


def of_day(calls: list[Call], model: ApiModel, usd: str = "3.6", headroom: str = "1") -> BreakEven:
    return breakeven(calls, price(usd), [model], period_ns=(0, 24 * HOUR), headroom=D(headroom))


def test_value_of_an_hour_and_break_even_by_hand() -> None:
    # 3,600 calls an hour at 0.004 USD are 14.40 USD; the hour costs 3.60: a quarter
    (found,) = of_day(day(2400), api("0.004")).against
    assert found.value_usd_per_hour == pytest.approx(D("14.4"))
    assert found.utilisation == pytest.approx(D("0.25"))
    # an engine's month over 3.2 USD a million tokens, of the 1,250 × 3,600 × 730.5 that one does
    assert found.wins_from == pytest.approx(D("3.6") * HOURS_A_MONTH / D("3.2") * 1_000_000)
    assert found.wins_from == pytest.approx(D("0.25") * 1250 * 3600 * HOURS_A_MONTH)
    assert found.winner == "api"
    assert "own engines can be from 822 million tokens" in found.verdict


def test_the_same_mix_needs_no_split() -> None:
    for weights in (STATED, (D(1), D(1), D(1)), (D(1), D(0), D(50))):
        own = measured_price(price().hour, ENGINE, Split("ratio", weights))
        (found,) = breakeven(day(240), own, [api("0.004")], period_ns=(0, 24 * HOUR)).against
        assert found.utilisation == pytest.approx(D("0.25"))


def test_an_api_that_charges_less_than_a_full_engine_costs_always_wins() -> None:
    found = of_day(day(24_000), api("0.0009"))
    (one,) = found.against
    assert one.utilisation is not None
    assert one.utilisation > 1
    assert (one.winner, one.wins_from, one.always_from) == ("api", None, None)
    assert "at any volume" in one.verdict
    assert all(step.own_usd >= step.api_usd["lab/a"] for step in found.staircase)


def test_peaks_make_idle_engines() -> None:
    flat, bursty = of_day(day(240_000), api("0.002")), of_day(day(120_000, burst=120_000), api("0.002"))
    assert flat.demand.peak == pytest.approx(D(1), rel=D("0.01"))
    # 120,000 / 24 + 120,000 in the first hour, over 10,000 an hour
    assert bursty.demand.peak == pytest.approx(D("12.5"), rel=D("0.01"))
    assert (flat.fleet.engines, bursty.fleet.engines) == (3, 35)
    assert [one.winner for one in (flat.against[0], bursty.against[0])] == ["own", "api"]
    assert "with these peaks" in bursty.against[0].verdict


def test_demand_is_what_a_sample_stands_for() -> None:
    whole, sample = (
        of_day(day(2400), api("0.004")),
        breakeven(day(240), price(), [api("0.004")], counted=2400, period_ns=(0, 24 * HOUR)),
    )
    assert whole.demand.tokens_per_month == sample.demand.tokens_per_month == 2400 * 1250 * HOURS_A_MONTH / 24
    assert (sample.demand.calls, sample.demand.counted) == (240, 2400)
    given_volume = breakeven(day(24), price(), [api("0.004")], period_ns=(0, 24 * HOUR), tokens_per_month=D(10**10))
    assert given_volume.demand.tokens_per_month == 10**10
    assert given_volume.demand.busy_engines == pytest.approx(D(10**10) / (1250 * 3600 * HOURS_A_MONTH))


def test_what_is_not_known_is_said() -> None:
    notes = " ".join(breakeven(day(24)[:1], price(), [api("0.004")], period_ns=(0, HOUR // 2)).notes)
    assert "isn't judged" in notes
    assert "span less than an hour" in notes
    unpriced = ApiModel("lab/x", None, note="nobody knows")
    found = breakeven(day(24), price(), [unpriced, api("5")], period_ns=(0, 24 * HOUR))
    assert found.against[0].verdict == "lab/x has no price: nobody knows"
    assert found.against[1].winner == "own"
    other = [Call(at * HOUR, 10_000, 5_000, 10) for at in range(24)]
    mixed = breakeven(other, price(), [api("1")], period_ns=(0, 24 * HOUR))
    assert any("another mix" in note for note in mixed.notes)


def test_the_rule_of_thumb_is_beside_the_verdict() -> None:
    little, much = of_day(day(24), api("5")), of_day(day(24_000), api("0.0001"))
    assert (little.rule_of_thumb, little.against[0].winner) == ("api", "own")
    assert (much.rule_of_thumb, much.against[0].winner) == ("own", "api")
    for one in (little, much):
        assert any("the figures say otherwise" in note for note in one.notes)
    assert of_day(day(1000), api("1")).rule_of_thumb is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no calls"):
        breakeven([], price(), [api("1")])
    with pytest.raises(ValueError, match="no tokens"):
        breakeven([Call(0, 0, 0, 0)], price(), [api("1")], period_ns=(0, HOUR))
    with pytest.raises(ValueError, match="one moment"):
        breakeven([Call(0, 1, 0, 1)], price(), [api("1")])
    with pytest.raises(ValueError, match="headroom"):
        breakeven(day(24), price(), [api("1")], headroom=D(0))
    with pytest.raises(ValueError, match="costs nothing"):
        breakeven(day(24), price("0"), [api("1")])


usd = st.decimals("0.0001", "0.05", places=6)


@settings(max_examples=60, deadline=None)
@given(usd, st.decimals("0.1", 20, places=2), st.integers(2, 400), st.integers(0, 300), st.sampled_from(["0.5", "0.8", "1"]))
@example(D("0.0001"), D("0.10"), 2, 26, "0.5")
def test_where_it_is_said_to_turn_it_turns(a_call: Decimal, hour: Decimal, count: int, burst: int, headroom: str) -> None:
    calls = day(count, burst=burst)

    def at(*, api_factor: Decimal = ONE, hour_factor: Decimal = ONE, volume: Decimal = ONE) -> str | None:
        own = measured_price(hourly_cost(Cost(usd_per_hour=hour * hour_factor)), ENGINE, Split("ratio", STATED))
        found = breakeven(
            calls, own, [api(f"{a_call * api_factor:f}")], period_ns=(0, 24 * HOUR), headroom=D(headroom),
            tokens_per_month=len(calls) * 1250 * HOURS_A_MONTH / 24 * volume * 1000,
        )  # fmt: skip
        return found.against[0].winner

    base = breakeven(
        calls, measured_price(hourly_cost(Cost(usd_per_hour=hour)), ENGINE, Split("ratio", STATED)), [api(f"{a_call:f}")],
        period_ns=(0, 24 * HOUR), headroom=D(headroom), tokens_per_month=len(calls) * 1250 * HOURS_A_MONTH / 24 * 1000,
    )  # fmt: skip
    (one,) = base.against
    turns = {case.input: case.turns_at for case in one.cases}
    assert one.winner == at()
    for case in one.cases:
        assert case.flips == ((case.own_usd < case.api_usd) != (one.winner == "own"))
    slightly = D("0.0001")
    for name, changed in (("API price", "api_factor"), ("cost of an hour", "hour_factor"), ("volume", "volume")):
        turn = turns[name]
        if turn is None:
            continue
        assert {at(**{changed: turn * (1 - slightly)}), at(**{changed: turn * (1 + slightly)})} == {"own", "api"}, name
    if turns["volume"] is None and one.winner == "api":
        assert one.wins_from is None


@settings(max_examples=100, deadline=None)
@given(usd, st.decimals("0.1", 20, places=2), st.integers(1, 400), st.sampled_from(["0.5", "0.8", "1"]))
def test_from_where_it_is_said_to_win_it_wins(a_call: Decimal, hour: Decimal, count: int, headroom: str) -> None:
    own = measured_price(hourly_cost(Cost(usd_per_hour=hour)), ENGINE, Split("ratio", STATED))

    def at(volume: Decimal | None) -> BreakEven:
        return breakeven(
            day(count), own, [api(f"{a_call:f}")], period_ns=(0, 24 * HOUR), headroom=D(headroom), tokens_per_month=volume
        )

    (one,) = at(None).against
    if one.wins_from is None:
        assert one.always_from is None
        for factor in (1, 7, 100, 10_000):
            assert at(D(factor) * 10**8).against[0].winner == "api"
        return
    assert at(one.wins_from * D("0.9999")).against[0].winner == "api"
    assert at(one.wins_from * D("1.0001")).against[0].winner == "own" or one.wins_from * D("1.0001") > _carried(at(None))
    if one.always_from is not None:
        for more in ("1.0001", "1.1", "1.37", "2.01", "3.9", "17.3", "401.7"):
            assert at(one.always_from * D(more)).against[0].winner == "own"


def _carried(found: BreakEven) -> Decimal:
    return found.demand.tokens_per_month / found.need.engines


def test_a_fleet_is_rounded_up_and_never_empty() -> None:
    assert fleet(Need(D("0.01"), D(1), D(1))).engines == 1
    assert fleet(Need(D(2), D("1.5"), D("0.75"))).engines == 4
    assert fleet(Need(D("2.001"), D("1.5"), D("0.75"))).engines == 5
    assert fleet(Need(D(2), D(2), D("0.8"))).utilisation == D("0.4")


def test_api_prices_are_the_ledgers_own() -> None:
    book = PriceBook(
        read_prices(
            """
prices:
  models:
    - model: lab-a
      provider: lab
      per_million_tokens: {input: 1, cache_read: 0.1, cache_write: 2, output: 10}
      above: [{input_tokens: 1000, per_million_tokens: {input: 5}}]
"""
        )
    )
    (model,) = api_models(["lab/lab-a", "lab/lab-a"], book, NOW, [Call(0, 10, 5, 1)])
    assert model.price is not None
    assert model.price(Call(0, 1000, 400, 100, 100)) == (500 * D(1) + 400 * D("0.1") + 100 * D(2) + 100 * D(10)) / 1_000_000
    assert model.price(Call(0, 1001, 0, 0)) == D("0.005005")
    assert "writing to its cache isn't in the calls: 1 USD" in model.note
    (missing,) = api_models(["openai/gpt-5-minni"], book, NOW)
    assert (missing.price, missing.note) == (None, "no price is known: did you mean openai/gpt-5-mini?")


def test_the_azure_hour_against_two_models() -> None:
    mix = trace_calls(SHIPPED["azure-conversation"])
    models = api_models(["openai/gpt-5-mini", "anthropic/claude-haiku-4-5"], PriceBook(), NOW, mix.calls)
    capacity = replace(ENGINE, input_tokens_per_s=4000.0, output_tokens_per_s=730.0)
    found = breakeven(mix.calls, price("2", capacity), models, period_ns=(mix.since_ns, mix.until_ns))
    tokens = found.demand.by_bucket
    mini, haiku = found.against
    # prices of the list, and no tier: the sum is that of the tokens
    assert mini.usd == (tokens["input"] * D("0.25") + tokens["output"] * D(2)) / 1_000_000
    assert haiku.usd == (tokens["input"] * D(1) + tokens["output"] * D(5)) / 1_000_000
    assert found.as_json()["against"][0]["winner"] == mini.winner
    assert found.demand.peak > 1
    assert found.demand.bin_s == 300
