"""Which period an instant belongs to: every zone, both changes of the clock, short months, dates that never were."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.alerts.periods import CATCH_UP, PeriodSpec, Unit, period_at, previous, since

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def told(spec: PeriodSpec, now: str) -> tuple[str, str, str]:
    period = period_at(spec, utc(now))
    return period.label, f"{period.start:%m-%d %H:%M}", f"{period.end:%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("unit", "now", "expected"),
    [
        ("hour", "2026-03-10T12:59:59.999999", ("2026-03-10 12:00", "03-10 12:00", "03-10 13:00")),
        ("day", "2026-03-10T12:00", ("2026-03-10", "03-10 00:00", "03-11 00:00")),
        ("day", "2028-02-29T23:00", ("2028-02-29", "02-29 00:00", "03-01 00:00")),
        ("week", "2026-03-15T23:59", ("2026-W11", "03-09 00:00", "03-16 00:00")),
        ("week", "2026-01-01T00:00", ("2026-W01", "12-29 00:00", "01-05 00:00")),
        ("week", "2027-01-03T00:00", ("2026-W53", "12-28 00:00", "01-04 00:00")),
        ("month", "2026-02-28T23:59", ("2026-02", "02-01 00:00", "03-01 00:00")),
        ("month", "2028-02-29T23:59", ("2028-02", "02-01 00:00", "03-01 00:00")),
        ("month", "2026-12-31T23:59", ("2026-12", "12-01 00:00", "01-01 00:00")),
        ("quarter", "2026-06-30T23:59", ("2026-Q2", "04-01 00:00", "07-01 00:00")),
        ("quarter", "2026-10-01T00:00", ("2026-Q4", "10-01 00:00", "01-01 00:00")),
    ],
)
def test_the_calendar(unit: str, now: str, expected: tuple[str, str, str]) -> None:
    assert told(PeriodSpec(Unit(unit)), now) == expected


@pytest.mark.parametrize(
    ("zone", "now", "hours", "start", "end"),
    [
        # Spring: a day of 23 hours. Autumn: of 25.
        ("America/New_York", "2026-03-08T12:00", 23, "03-08 05:00", "03-09 04:00"),
        ("America/New_York", "2026-11-01T12:00", 25, "11-01 04:00", "11-02 05:00"),
        ("Europe/Berlin", "2026-03-29T12:00", 23, "03-28 23:00", "03-29 22:00"),
        ("Europe/Berlin", "2026-10-25T12:00", 25, "10-24 22:00", "10-25 23:00"),
        # By half an hour.
        ("Australia/Lord_Howe", "2026-04-05T00:00", 24.5, "04-04 13:00", "04-05 13:30"),
        ("Australia/Lord_Howe", "2026-10-04T00:00", 23.5, "10-03 13:30", "10-04 13:00"),
        # At midnight: it doesn't exist in spring, and comes twice, or ends the day late, in autumn.
        ("America/Havana", "2026-03-08T12:00", 23, "03-08 05:00", "03-09 04:00"),
        ("America/Havana", "2026-11-01T12:00", 25, "11-01 04:00", "11-02 05:00"),
        ("Africa/Cairo", "2026-04-24T12:00", 23, "04-23 22:00", "04-24 21:00"),
        ("Africa/Cairo", "2026-10-29T12:00", 25, "10-28 21:00", "10-29 22:00"),
        ("Asia/Beirut", "2026-03-29T12:00", 23, "03-28 22:00", "03-29 21:00"),
        ("Asia/Beirut", "2026-10-24T12:00", 25, "10-23 21:00", "10-24 22:00"),
        # From 00:01 back to 23:01: the first midnight counts.
        ("America/St_Johns", "2010-11-07T12:00", 25, "11-07 02:30", "11-08 03:30"),
        ("Asia/Kathmandu", "2026-03-10T12:00", 24, "03-09 18:15", "03-10 18:15"),
        ("Pacific/Kiritimati", "2026-03-10T12:00", 24, "03-10 10:00", "03-11 10:00"),
    ],
)
def test_days_where_the_clock_changes(zone: str, now: str, hours: float, start: str, end: str) -> None:
    period = period_at(PeriodSpec(Unit.DAY, zone), utc(now))
    assert told(PeriodSpec(Unit.DAY, zone), now)[1:] == (start, end)
    assert period.end - period.start == hours * HOUR


def test_a_date_that_is_shown_again_after_the_next_has_begun() -> None:
    """In Newfoundland a minute of 7 November went by before the clocks showed the 6th again."""
    day, hour = PeriodSpec(Unit.DAY, "America/St_Johns"), PeriodSpec(Unit.HOUR, "America/St_Johns")
    for now in ("2010-11-07T02:30", "2010-11-07T02:31", "2010-11-07T03:29", "2010-11-07T03:30"):
        assert told(day, now)[0] == "2010-11-07"
    assert told(day, "2010-11-07T02:29")[0] == "2010-11-06"
    assert told(hour, "2010-11-07T02:30") == ("2010-11-07 00:00 NDT", "11-07 02:30", "11-07 02:31")
    assert told(hour, "2010-11-07T02:31") == ("2010-11-06 23:01 NST", "11-07 02:31", "11-07 03:30")


def test_a_date_that_never_was() -> None:
    """Samoa went from 29 to 31 December 2011."""
    apia = PeriodSpec(Unit.DAY, "Pacific/Apia")
    after = period_at(apia, utc("2011-12-30T10:00"))
    before = previous(apia, after)
    assert (before.label, after.label) == ("2011-12-29", "2011-12-31")
    assert before.end == after.start == utc("2011-12-30T10:00")
    assert after.end - after.start == DAY
    assert told(PeriodSpec(Unit.WEEK, "Pacific/Apia"), "2011-12-31T00:00")[1:] == ("12-26 10:00", "01-01 10:00")


def test_the_hour_that_comes_twice_and_the_one_that_never_does() -> None:
    new_york = PeriodSpec(Unit.HOUR, "America/New_York")
    assert [told(new_york, f"2026-11-01T0{hour}:30")[0] for hour in range(4, 8)] == [
        "2026-11-01 00:00",
        "2026-11-01 01:00 EDT",
        "2026-11-01 01:00 EST",
        "2026-11-01 02:00",
    ]
    assert [told(new_york, f"2026-03-08T0{hour}:30")[0] for hour in (6, 7)] == ["2026-03-08 01:00", "2026-03-08 03:00"]


def test_hours_of_zones_between_hours() -> None:
    assert told(PeriodSpec(Unit.HOUR, "Asia/Kolkata"), "2026-03-10T12:00") == ("2026-03-10 17:00", "03-10 11:30", "03-10 12:30")
    howe = PeriodSpec(Unit.HOUR, "Australia/Lord_Howe")
    assert told(howe, "2026-04-04T15:10") == ("2026-04-05 01:30 +1030", "04-04 15:00", "04-04 15:30")
    assert told(howe, "2026-10-03T15:40") == ("2026-10-04 02:30 +11", "10-03 15:30", "10-03 16:00")


@pytest.mark.parametrize(
    ("spec", "now", "label"),
    [
        (PeriodSpec(Unit.WEEK, week_starts=6), "2026-03-14T23:59", "2026-03-08 to 2026-03-14"),
        (PeriodSpec(Unit.WEEK, week_starts=6), "2026-03-15T00:00", "2026-03-15 to 2026-03-21"),
        (PeriodSpec(Unit.WEEK, every=2, start=date(2026, 1, 7)), "2026-01-20T23:59", "2026-01-07 to 2026-01-20"),
        (PeriodSpec(Unit.WEEK, every=2, start=date(2026, 1, 7)), "2026-01-06T23:59", "2025-12-24 to 2026-01-06"),
        (PeriodSpec(Unit.DAY, every=10, start=date(2026, 1, 1)), "2026-01-11T00:00", "2026-01-11 to 2026-01-20"),
        (PeriodSpec(Unit.MONTH, start=date(2026, 1, 15)), "2026-03-14T23:59", "2026-02-15 to 2026-03-14"),
        (PeriodSpec(Unit.MONTH, start=date(2026, 1, 31)), "2026-02-28T12:00", "2026-02-28 to 2026-03-30"),
        (PeriodSpec(Unit.MONTH, start=date(2026, 1, 31)), "2028-02-28T12:00", "2028-01-31 to 2028-02-28"),
        (PeriodSpec(Unit.MONTH, every=3, start=date(2026, 2, 1)), "2026-01-31T12:00", "2025-11-01 to 2026-01-31"),
        (PeriodSpec(Unit.MONTH, every=12, start=date(2024, 2, 29)), "2026-02-28T12:00", "2026-02-28 to 2027-02-27"),
    ],
)
def test_periods_of_ones_own(spec: PeriodSpec, now: str, label: str) -> None:
    assert told(spec, now)[0] == label


UNITS = st.one_of(
    st.builds(PeriodSpec, st.sampled_from(Unit), st.sampled_from(sorted(available_timezones())), st.integers(0, 6)),
    st.builds(
        PeriodSpec,
        st.sampled_from([Unit.DAY, Unit.WEEK, Unit.MONTH]),
        st.sampled_from(sorted(available_timezones())),
        every=st.integers(1, 40),
        start=st.dates(date(1971, 1, 1), date(2037, 1, 1)),
    ),
)
INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=500, deadline=None)
@given(UNITS, INSTANTS)
def test_periods_tile_time(spec: PeriodSpec, now: datetime) -> None:
    """Without gap or overlap: the end of one is the start of the next, and every instant between gives the same period."""
    period = period_at(spec, now)
    assert period.start <= now < period.end
    assert period_at(spec, period.start) == period_at(spec, period.end - timedelta(microseconds=1)) == period
    assert period_at(spec, period.end).start == period.end
    assert previous(spec, period).end == period.start
    assert previous(spec, period_at(spec, period.end)) == period


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(available_timezones())), st.integers(2000, 2036), st.integers(-90, 90))
def test_a_day_is_what_the_clock_on_the_wall_calls_it(zone: str, year: int, minutes: int) -> None:
    """Around every change of a zone's clock in a year: the date on the wall, but where a date is shown again after the next has begun."""
    spec, at = PeriodSpec(Unit.DAY, zone), datetime(year, 1, 1, tzinfo=UTC)
    clock = ZoneInfo(zone)
    for hours in range(0, 366 * 24, 24):
        day = at + timedelta(hours=hours)
        if day.astimezone(clock).utcoffset() == (day + DAY).astimezone(clock).utcoffset():
            continue
        for hour in range(25):
            now = day + timedelta(hours=hour, minutes=minutes)
            wall = now.astimezone(clock)
            shown = period_at(spec, now).label
            again = wall.fold == 1 and wall.hour == 23 and shown == str(wall.date() + DAY)
            assert shown == str(wall.date()) or again


# --- what a tick judges ------------------------------------------------------------------------------------------------------------


def labels(spec: PeriodSpec, last: str | None, now: str, in_force: datetime | None = None) -> list[str]:
    return [period.label for period in since(spec, utc(last) if last else None, utc(now), in_force=in_force)]


def test_a_tick_judges_the_present_and_the_last_period() -> None:
    day = PeriodSpec(Unit.DAY)
    assert labels(day, "2026-03-10T11:59:50", "2026-03-10T12:00") == ["2026-03-09", "2026-03-10"]
    assert labels(day, "2026-03-09T23:59:55", "2026-03-10T00:00:05") == ["2026-03-09", "2026-03-10"]
    assert labels(day, None, "2026-03-10T12:00") == ["2026-03-10"]


def test_after_a_downtime_all_that_ended_in_it() -> None:
    assert labels(PeriodSpec(Unit.DAY), "2026-03-06T12:00", "2026-03-09T08:00") == [
        "2026-03-06", "2026-03-07", "2026-03-08", "2026-03-09",
    ]  # fmt: skip
    assert labels(PeriodSpec(Unit.MONTH), "2026-01-31T23:59", "2026-03-01T00:01") == ["2026-01", "2026-02", "2026-03"]


def test_a_tick_on_the_boundary_has_seen_the_end() -> None:
    assert labels(PeriodSpec(Unit.DAY), "2026-03-08T00:00", "2026-03-10T08:00") == ["2026-03-08", "2026-03-09", "2026-03-10"]


def test_a_clock_set_back() -> None:
    assert labels(PeriodSpec(Unit.DAY), "2026-03-10T12:00", "2026-03-08T12:00") == ["2026-03-07", "2026-03-08"]


def test_a_long_downtime_is_bounded_and_the_newest_kept() -> None:
    found = labels(PeriodSpec(Unit.HOUR), "2025-01-01T00:00", "2026-03-10T12:30")
    assert len(found) == CATCH_UP
    assert found[-1] == "2026-03-10 12:00"
    assert found == sorted(found)


def test_what_ended_before_a_budget_held_is_not_judged_by_it() -> None:
    last, now = "2026-03-10T08:00", "2026-03-10T08:00:10"
    day = PeriodSpec(Unit.DAY)
    assert labels(day, last, now, in_force=utc("2026-03-10T07:00")) == ["2026-03-10"]
    assert labels(day, last, now, in_force=utc("2026-03-10T00:00")) == ["2026-03-10"]
    assert labels(day, last, now, in_force=utc("2026-03-09T23:59")) == ["2026-03-09", "2026-03-10"]
