"""Kinds of values in the configuration, each with an error that says what to write instead.

A file's scalars arrive as the text that stands in it (so `no`, `007` and `22:00` stay what they are), those of the API as JSON's types.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from tallystick.alerts.model import Basis, Threshold
from tallystick.attribution.spend import DIMENSIONS, UnknownDimension, check_dimension

MAX_PERCENT: Final = 10_000
TIME_DIMENSIONS: Final = frozenset({"hour", "day", "month"})
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Part(BaseModel):
    """A part of the configuration: unknown fields are errors, and no error shows what was entered."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        validate_default=True,
        hide_input_in_errors=True,
    )


def did_you_mean(word: str, known: Mapping[str, Any] | list[str] | frozenset[str]) -> str:
    """`did you mean x?`, or what there is."""
    names = sorted(known)
    close = get_close_matches(word.casefold(), names, 1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {', '.join(f'`{name}`' for name in names)}" if names else "there is none"


def _decimal(value: object) -> Decimal:
    if isinstance(value, str | int | float | Decimal):
        try:
            number = Decimal(str(value).strip())
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite() and len(number.as_tuple().digits) <= 24 and abs(number.adjusted()) <= 18:
            return number
    raise ValueError("write a number such as 100 or 0.5")


def _percent(value: object) -> Decimal:
    return _decimal(value.strip().removesuffix("%") if isinstance(value, str) else value)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int | float) else value


def _zone(value: object) -> str:
    if isinstance(value, str):
        try:
            return ZoneInfo(value).key
        except (KeyError, ValueError, OSError):
            folded = _zones()
            close = get_close_matches(value.casefold(), folded, 1)
            raise ValueError(
                f"no such time zone; {f'did you mean `{folded[close[0]]}`?' if close else 'write one such as `Europe/Berlin` or `UTC`'}"
            ) from None
    raise ValueError("write a time zone such as `Europe/Berlin` or `UTC`")


@cache
def _zones() -> dict[str, str]:
    return {name.casefold(): name for name in sorted(available_timezones())}


def _dimension(value: object) -> str:
    """A dimension of the ledger. Raises ValueError; time is no scope: that is what the period is for."""
    if not isinstance(value, str):
        raise ValueError("write the name of a dimension such as `customer`")
    if value in TIME_DIMENSIONS:
        raise ValueError(f"`{value}` is a time, not a scope: set `period`")
    try:
        check_dimension(value)
    except UnknownDimension:
        known = {name: None for name in DIMENSIONS if name not in TIME_DIMENSIONS} | {"tag:NAME": None}
        raise ValueError(f"no such dimension; {did_you_mean(value, known)}") from None
    return value


def _scope(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError("write dimensions with their values, such as `{customer: acme, model: [gpt-5, gpt-5-mini]}`")
    return value


def _values(value: object) -> tuple[str, ...]:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not listed or not all(isinstance(one, str | int) and not isinstance(one, bool) for one in listed):
        raise ValueError('write a value or a list of values; "" is what nothing was said about')
    return tuple(sorted({str(one) for one in listed}))


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d{1,6})\s*([smhdw])", value.strip()) if isinstance(value, str) else None
    if found is None or int(found[1]) == 0:
        raise ValueError("write a duration such as 30m, 12h, 7d or 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _written(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "m"), (1, "s")) if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _wall_time(value: object) -> time:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    found = re.fullmatch(r"(\d{1,2}):(\d{2})(?::00)?", value.strip()) if isinstance(value, str) else None
    if found is None or int(found[1]) > 24 or int(found[2]) > 59 or (int(found[1]) == 24 and int(found[2])):
        raise ValueError("write a time of day such as 22:00")
    return time(int(found[1]) % 24, int(found[2]))


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$")]
Number = Annotated[Decimal, BeforeValidator(_decimal)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Decimal, BeforeValidator(_percent), Field(gt=0, lt=100)]
"""In percent."""
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Zone = Annotated[str, BeforeValidator(_zone)]
Dimension = Annotated[str, BeforeValidator(_dimension)]
Scope = Annotated[dict[Dimension, Annotated[tuple[str, ...], BeforeValidator(_values)]], BeforeValidator(_scope)]
"""Dimension → the values that belong to it; all dimensions must hold."""
Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(_written, when_used="json")]
WallTime = Annotated[time, BeforeValidator(_wall_time)]


def threshold(value: object) -> Threshold:
    """Of `80`, `"80%"`, `"forecast 100"` or `{percent: 100, of: forecast}`. Raises ValueError."""
    match value:
        case Threshold():
            return value
        case {"percent": percent, **rest} if not rest.keys() - {"of"}:
            basis = rest.get("of", Basis.ACTUAL)
        case str() if found := re.fullmatch(r"(actual|forecast)[\s:]+(.+)", value.strip()):
            basis, percent = found[1], found[2]
        case _:
            basis, percent = Basis.ACTUAL, value
    try:
        parsed = Threshold(_percent(percent), Basis(str(basis)))
        if not 0 < parsed.percent <= MAX_PERCENT:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"write percents such as 80, `forecast 100` or `{{percent: 100, of: forecast}}`, above 0 and up to {MAX_PERCENT}"
        ) from None
    return parsed


def _threshold_text(value: Threshold) -> str:
    return value.key.removeprefix("actual:")


ThresholdField = Annotated[Threshold, PlainValidator(threshold), PlainSerializer(_threshold_text)]


class QuietHours(Part):
    """Every day from `from` until `until` on the clock of `timezone` (the budget's own if none), nothing is sent but `except`.

    What is said in them is sent when they end.
    """

    from_: Annotated[WallTime, Field(alias="from")]
    until: WallTime
    timezone: Zone | None = None
    except_: Annotated[tuple[ThresholdField, ...], BeforeValidator(_listed), Field(alias="except")] = ()

    @field_validator("until")
    @classmethod
    def _some_hours(cls, until: time, info: ValidationInfo) -> time:
        if until == info.data.get("from_"):
            raise ValueError(
                "is the same time as `from`: that would be all day; for a budget that is only shown write `notify: []`"
            )
        return until

    def end_after(self, now: datetime, timezone: str) -> datetime | None:
        """When the quiet hours that hold at `now` end, in UTC; None if none do. timezone: the budget's."""
        zone = ZoneInfo(self.timezone or timezone)
        local = now.astimezone(zone).replace(tzinfo=None)
        over_midnight = self.until <= self.from_
        in_evening = over_midnight and local.time() >= self.from_
        in_morning = local.time() < self.until and (over_midnight or local.time() >= self.from_)
        if not in_evening and not in_morning:
            return None
        day = local.date() + timedelta(days=1) if in_evening else local.date()
        end = datetime.combine(day, self.until, zone).astimezone(UTC)
        # The clock may be set back over the end: then it comes twice, and the second is the one ahead.
        return end if end > now else datetime.combine(day, self.until, zone).replace(fold=1).astimezone(UTC)
