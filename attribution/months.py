"""Periods of the calendar, in UTC, by the names that people give them: `2026-10`, `2026-W42`, `2026-10-05`."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, NamedTuple

Length = Literal["day", "week", "month"]

_FORMS: Final = "write a month (2026-10), a week (2026-W42) or a day (2026-10-05)"


class Period(NamedTuple):
    """[since, until), aware; `name` is how it was or would be written."""

    name: str
    length: Length
    since: datetime
    until: datetime

    @property
    def days(self) -> int:
        return (self.until - self.since).days

    def before(self) -> "Period":
        """The period of the same kind that ends where this one begins."""
        return _of(self.length, (self.since - timedelta(days=1)).date())


def period_named(text: str) -> Period:
    """Raises ValueError, saying what is understood."""
    try:
        if month := re.fullmatch(r"(\d{4})-(\d{2})", text):
            found = _of("month", date(int(month[1]), int(month[2]), 1))
        elif week := re.fullmatch(r"(\d{4})-W(\d{2})", text):
            found = _of("week", date.fromisocalendar(int(week[1]), int(week[2]), 1))
        elif re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            found = _of("day", date.fromisoformat(text))
        else:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no period: {_FORMS}") from None
    if not 1971 <= found.since.year < 2149:
        raise ValueError(f"{text!r} is outside 1971 to 2148")
    return found


def _of(length: Length, within: date) -> Period:
    match length:
        case "day":
            return Period(within.isoformat(), length, _midnight(within), _midnight(within + timedelta(days=1)))
        case "week":
            first = within - timedelta(days=within.weekday())
            year, week, _ = first.isocalendar()
            return Period(f"{year}-W{week:02}", length, _midnight(first), _midnight(first + timedelta(days=7)))
        case "month":
            first = within.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
            return Period(f"{first:%Y-%m}", length, _midnight(first), _midnight(following))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
