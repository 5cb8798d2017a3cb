"""Forecasts: the run rate, the weekday's shape, what they are worth, and when there is none."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.alerts.forecast import forecast, history_from, step_of
from tallystick.alerts.model import Period

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), "2026-03")
A_DAY = Period(datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC), "2026-03-02")


def steps(start: datetime, values: Sequence[float], step: timedelta = DAY) -> dict[datetime, Decimal]:
    return {start + n * step: Decimal(str(value)) for n, value in enumerate(values)}


def weekly(at: datetime) -> float:
    """100 on workdays, 10 at weekends."""
    return 10.0 if at.weekday() > 4 else 100.0


def history(start: datetime, days: int, spend: Callable[[datetime], float]) -> dict[datetime, Decimal]:
    return steps(start, [spend(start + n * DAY) for n in range(days)])


def test_even_spend_goes_on() -> None:
    """Ten days of 10 USD, and 5 USD in half a day: 31 days come to 310."""
    now = MARCH.start + 10.5 * DAY
    found = forecast(MARCH, now, Decimal(105), steps(MARCH.start, [10] * 10))
    assert found is not None
    assert found.low == found.expected == found.high == 310


def test_what_varies_has_a_range() -> None:
    found = forecast(MARCH, MARCH.start + 10 * DAY, Decimal(100), steps(MARCH.start, [5, 15, 8, 12, 10, 9, 11, 14, 6, 10]))
    assert found is not None
    assert found.expected == 310
    assert 250 < found.low < 300
    assert 320 < found.high < 370


def test_one_batch_job_is_spent_but_no_trend() -> None:
    days = [10, 11, 9, 10, 500, 10, 9, 11, 10, 10]
    found = forecast(MARCH, MARCH.start + 10 * DAY, Decimal(sum(days)), steps(MARCH.start, days))
    assert found is not None
    assert 590 + 21 * 9 < found.expected < 590 + 21 * 12


def test_weekends_are_foreseen_after_two_weeks() -> None:
    """On Friday evening of the third week the weekend ahead is cheap; a run rate would not know."""
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    week = Period(monday + 14 * DAY, monday + 21 * DAY, "2026-W12")
    now = week.start + 5 * DAY
    found = forecast(week, now, Decimal(500), history(monday, 19, weekly))
    assert found is not None
    assert found.expected == 520
    week_before = Period(monday + 7 * DAY, monday + 14 * DAY, "2026-W11")
    unshaped = forecast(week_before, now - 7 * DAY, Decimal(500), history(monday, 12, weekly))
    assert unshaped is not None
    assert unshaped.expected > 600


def test_a_shape_grows_with_its_level() -> None:
    """Three weeks as always, then everything doubles: the rest of the month is foreseen at the double."""
    start = MARCH.start - 28 * DAY
    past = history(start, 28, weekly) | history(MARCH.start, 7, lambda at: 2 * weekly(at))
    spent = sum((past[MARCH.start + n * DAY] for n in range(7)), Decimal(0))
    found = forecast(MARCH, MARCH.start + 7 * DAY, spent, past)
    assert found is not None
    assert found.expected == 2 * sum(Decimal(str(weekly(MARCH.start + n * DAY))) for n in range(31))


@pytest.mark.parametrize(("hours", "known"), [(0, False), (30, False), (47.9, False), (48, True), (100, True)])
def test_a_month_waits_for_its_third_day(hours: float, known: bool) -> None:
    now = MARCH.start + hours * HOUR
    assert (forecast(MARCH, now, Decimal(20), steps(MARCH.start, [10] * int(hours // 24 + 1))) is not None) == known


def test_who_is_new_is_judged_by_the_days_since() -> None:
    """First spend on the 10th: the nine days of nothing before it say nothing."""
    found = forecast(MARCH, MARCH.start + 12 * DAY, Decimal(30), steps(MARCH.start, [0] * 9 + [10] * 3))
    assert found is not None
    assert found.expected == 30 + 19 * 10


def test_days_of_nothing_count_once_something_was_spent() -> None:
    found = forecast(MARCH, MARCH.start + 10 * DAY, Decimal(50), {MARCH.start: Decimal(25), MARCH.start + 5 * DAY: Decimal(25)})
    assert found is not None
    assert found.expected == 50 + 21 * 5


def test_a_day_is_foreseen_in_hours() -> None:
    """Six hours are the least; with two days of hours before, nights and days are told apart."""
    assert step_of(A_DAY) == HOUR
    assert forecast(A_DAY, A_DAY.start + 5.5 * HOUR, Decimal(5), steps(A_DAY.start, [1] * 5, HOUR)) is None
    plain = forecast(A_DAY, A_DAY.start + 6 * HOUR, Decimal(6), steps(A_DAY.start, [1] * 6, HOUR))
    assert plain is not None
    assert plain.expected == 24
    office = [1.0] * 8 + [9.0] * 10 + [1.0] * 6
    shaped = forecast(A_DAY, A_DAY.start + 6 * HOUR, Decimal(6), steps(A_DAY.start - 3 * DAY, office * 3 + [1] * 6, HOUR))
    assert shaped is not None
    assert shaped.expected == sum(map(Decimal, office))


def test_a_day_of_25_hours_is_a_day() -> None:
    assert step_of(Period(A_DAY.start, A_DAY.start + 25 * HOUR, "")) == HOUR
    assert step_of(Period(A_DAY.start, A_DAY.start + 48 * HOUR, "")) == DAY
    assert history_from(MARCH) == MARCH.start - 28 * DAY


@pytest.mark.parametrize("past", [{}, steps(MARCH.start, [0] * 20)])
def test_nothing_spent_is_nothing_known(past: dict[datetime, Decimal]) -> None:
    assert forecast(MARCH, MARCH.start + 20 * DAY, Decimal(0), past) is None


def test_a_period_that_is_over_has_none() -> None:
    assert forecast(MARCH, MARCH.end, Decimal(310), steps(MARCH.start, [10] * 31)) is None


@pytest.mark.parametrize("known_days", [14, 28])
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_eight_of_ten_ends_lie_in_the_range(known_days: int, noise: float) -> None:
    """Months of workdays and weekends with lognormal noise, forecast on the tenth day."""
    dice = random.Random(11)
    inside, bias, trials = 0, 0.0, 200
    start = MARCH.start + 10 * DAY - known_days * DAY
    for _ in range(trials):
        spend = history(start, known_days + 21, lambda at: weekly(at) * dice.lognormvariate(0, noise))
        now = MARCH.start + 10 * DAY
        total = sum((value for at, value in spend.items() if at >= MARCH.start), Decimal(0))
        spent = sum((value for at, value in spend.items() if MARCH.start <= at < now), Decimal(0))
        found = forecast(MARCH, now, spent, {at: value for at, value in spend.items() if at < now})
        assert found is not None
        inside += found.low <= total <= found.high
        bias += float(found.expected / total) - 1
    assert 0.7 < inside / trials < 0.9
    assert abs(bias / trials) < 0.03


@given(
    st.lists(st.decimals(0, 1000, places=2), max_size=60),
    st.integers(0, 31 * 24 - 1),
    st.decimals(0, 100_000, places=2),
)
def test_a_range_holds_what_is_expected(values: list[Decimal], hours: int, spent: Decimal) -> None:
    now = MARCH.start + hours * HOUR
    past = {MARCH.start - 28 * DAY + n * DAY: value for n, value in enumerate(values)}
    found = forecast(MARCH, now, spent, past)
    if found is not None:
        assert spent <= found.low <= found.expected <= found.high
        tenfold = forecast(MARCH, now, spent * 10, {at: value * 10 for at, value in past.items()})
        assert tenfold is not None
        assert abs(tenfold.expected - 10 * found.expected) < Decimal("0.001")


def test_credits_do_not_make_the_rest_negative() -> None:
    found = forecast(MARCH, MARCH.start + 10 * DAY, Decimal(-80), steps(MARCH.start, [10] + [-10] * 9))
    assert found is not None
    assert found.expected == -80
