"""Points in time as people write them: `30d`, `24h`, `2026-11-01`, `2026-11-01T12:00:00+01:00`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""Seconds."""

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of a time, or of an age before `now_ns`.

    Ages of days and weeks start at midnight, UTC; times without a zone are UTC. Raises ValueError, saying what is understood.
    """
    if text == "now":
        return now_ns
    if age := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
        at = now_ns - int(age[1]) * UNITS[age[2]] * _SECOND
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


def nanoseconds(at: datetime) -> int:
    """Since 1970, of an aware time; exact, as a float of seconds wouldn't be."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def utc_text(at_ns: int) -> str:
    """`2026-11-01 12:00:00.000000000`: as a bound `{name:DateTime64(9, 'UTC')}` takes it."""
    seconds, rest = divmod(at_ns, _SECOND)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.{rest:09}"
