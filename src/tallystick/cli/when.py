"""Points in time as people write them: `30d`, `24h`, `2026-11-01`, `2026-11-01T12:00:00+01:00`; and lengths: `2h`."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from tallystick.attribution.moments import UNITS, end_of_day, moment

__all__ = ["Length", "end_of_day", "moment", "moment_option"]


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
        return timedelta(seconds=int(found[1]) * UNITS[found[2]])
