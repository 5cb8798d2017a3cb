"""Points in time as people write them: `30d`, `24h`, `2026-11-01`, `2026-11-01T12:00:00+01:00`; and lengths: `2h`."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of a time, or of an age before `now_ns`.

    Ages of days and weeks start at midnight, UTC; times without a zone are UTC. Raises ValueError, saying what is understood.
    """
    if text == "now":
        return now_ns
    if age := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
        at = now_ns - int(age[1]) * _UNITS[age[2]] * _SECOND
        return max(0, at // _DAY * _DAY if age[2] in "dw" else at)
    try:
        given = datetime.fromisoformat(text)
        since = (given if given.tzinfo else given.replace(tzinfo=UTC)) - _EPOCH
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 30d, 24h, 15m, 2026-11-01 or 2026-11-01T12:00:00") from None
    if not timedelta() <= since < timedelta(days=365 * 230):
        raise ValueError(f"{text!r} is outside 1970 to 2199")
    return since // timedelta(microseconds=1) * 1000


def end_of_day(now_ns: int) -> int:
    """The first midnight (UTC) after `now_ns`: until then, all of the present counts."""
    return (now_ns // _DAY + 1) * _DAY


def moment_option(name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that takes a time and gives nanoseconds since 1970."""
    return click.option(
        name, type=_Moment(), show_default=True, help="An age (30d, 24h, 15m) or a time (UTC if no zone).", **options
    )


class _Moment(click.ParamType[int]):
    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return moment(str(value), time.time_ns())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Length(click.ParamType[timedelta]):
    """An option's value such as `30m`, `2h`, `3d`, `1w`."""

    name = "LENGTH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([mhdw])", str(value))
        if found is None or not int(found[1]):
            self.fail(f"{value!r} is no length of time: write 30m, 2h, 3d or 1w", param, ctx)
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
