"""Scans of the ledger as one statement.

Days that lie whole in a stretch are asked by `toDate(started_at)`, which the ledger's projection answers; the hours at its edges, which
periods of other time zones have, are asked of the rows. Reading the rows of a month instead takes ten times as long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from tallystick.attribution.spend import DIMENSIONS

_QUERIES: Final = Path(__file__).parent / "queries"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_PROJECTED: Final = frozenset({"tenant", "customer", "feature", "agent", "team"})
_CORRECTION: Final = "entry IN ('reprice', 'trueup', 'allocation')"
_MANY: Final = 1_000
"""More values than this take the engine longer to look for than the projection's other groups take it."""

_BUCKETS: Final = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
TOKENS: Final = " + ".join(f"ifNull({name}, 0)" for name in _BUCKETS)
"""A row's tokens, which its buckets add up to."""
FIGURES: Final[Mapping[str, str]] = {
    "cost": "sum(cost_usd)",
    "tokens": " + ".join(f"ifNull(sum({name}), 0)" for name in _BUCKETS),
    "calls": "sum(calls)",
    "priced_tokens": " + ".join(f"ifNull(sumIf({name}, cost_usd IS NOT NULL), 0)" for name in _BUCKETS),
    "priced_calls": "sumIf(calls, cost_usd IS NOT NULL)",
}
"""What a scan can sum up: in the projection's own terms."""


@dataclass(frozen=True)
class Scan:
    """[start, end) by `dimensions`, and by days or hours where `step` says so. only: values of a dimension; others aren't asked for."""

    dimensions: tuple[str, ...]
    start: datetime
    end: datetime
    step: timedelta | None = None
    figures: frozenset[str] = frozenset({"cost"})
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Bound:
    """The values of a statement, under names of their own."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def __call__(self, value: object, kind: str) -> str:
        """Where the value stands in the text."""
        name = f"p{len(self.params)}"
        self.params[name] = value
        return f"{{{name}:{kind}}}"


@cache
def _template(name: str) -> str:
    lines = (_QUERIES / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def filled(name: str, **parts: str) -> str:
    """A statement of queries/, with its `/*parts*/`."""
    text = _template(name)
    for part, sql in parts.items():
        text = text.replace(f"/*{part}*/", sql)
    return text


def union(scans: Sequence[Scan], corrections: Scan | None = None) -> tuple[str, dict[str, Any]]:
    """The statement and its values. Columns: the scan's number, seconds since 1970 of the step, the dimensions' values, FIGURES.

    A figure that a scan doesn't ask for is NULL. corrections: `corrections_of(scans)`; its number is `len(scans)`.
    """
    bind = Bound()
    arms = [arm for number, scan in enumerate(scans) for arm in _arms(number, scan, bind)]
    if corrections:
        seconds = sorted({int(at.timestamp()) for scan in scans for at in (scan.start, scan.end)})
        step = f"roundDown(toUnixTimestamp(started_at), {bind(seconds, 'Array(UInt32)')})"
        within = f"{_CORRECTION} AND {during(corrections.start, corrections.end, bind)}"
        arms.append(_arm(len(scans), corrections, step, within, bind))
    return "\nUNION ALL\n".join(arms), bind.params


def corrections_of(scans: Sequence[Scan]) -> Scan:
    """One scan of what reprice, trueup and allocation entries cost in all of them; its steps begin where any of them begins or ends.

    These entries are few, and parts of the table that have none of them are left out by their statistics, which merged parts have.
    """
    shared = set.intersection(*(set(scan.only) for scan in scans))
    return Scan(
        tuple(sorted({dimension for scan in scans for dimension in scan.dimensions})),
        min(scan.start for scan in scans),
        max(scan.end for scan in scans),
        only={dimension: frozenset().union(*(scan.only[dimension] for scan in scans)) for dimension in shared},
    )


def dimension_sql(name: str, bind: Bound) -> str:
    """A dimension of the table `ledger`."""
    if name.startswith("tag:"):
        return f"tags[{bind(name.removeprefix('tag:'), 'String')}]"
    return DIMENSIONS[name]


def during(start: datetime, end: datetime, bind: Bound) -> str:
    """The rows of [start, end)."""
    return f"started_at >= {instant_sql(start, bind)} AND started_at < {instant_sql(end, bind)}"


def instant_sql(instant: datetime, bind: Bound) -> str:
    """An instant, to the microsecond."""
    return f"fromUnixTimestamp64Micro({bind((instant - _EPOCH) // timedelta(microseconds=1), 'Int64')}, 'UTC')"


def at(seconds: int) -> datetime:
    """The instant that a step begins with."""
    return _EPOCH + timedelta(seconds=seconds)


def floor(instant: datetime, step: timedelta) -> datetime:
    """The last start of a UTC day, or another step, up to then."""
    return instant - (instant - _EPOCH) % step


def ceiling(instant: datetime, step: timedelta) -> datetime:
    """The first start of a UTC day, or another step, from then on."""
    return instant + (_EPOCH - instant) % step


def _arms(number: int, scan: Scan, bind: Bound) -> list[str]:
    first, last = ceiling(scan.start, _DAY), floor(scan.end, _DAY)
    step = "0"
    if scan.step:
        step = "toUInt32(toDate(started_at)) * 86400" if scan.step == _DAY else "toUnixTimestamp(toStartOfHour(started_at))"
    days = first < last and scan.step in {None, _DAY} and _PROJECTED.issuperset(scan.dimensions)
    if not days:
        return [_arm(number, scan, step, during(scan.start, scan.end, bind), bind)]
    arms = [
        _arm(number, scan, step, f"toDate(started_at) >= {_day(first, bind)} AND toDate(started_at) < {_day(last, bind)}", bind)
    ]
    edges = [during(start, end, bind) for start, end in ((scan.start, first), (last, scan.end)) if start < end]
    return [*arms, _arm(number, scan, step, f"({' OR '.join(edges)})", bind)] if edges else arms


def _arm(number: int, scan: Scan, step: str, within: str, bind: Bound) -> str:
    values = [dimension_sql(name, bind) for name in scan.dimensions]
    conditions = [within]
    for name, value in zip(scan.dimensions, values, strict=True):
        if name in scan.only and not (name in _PROJECTED and len(scan.only[name]) > _MANY):
            conditions.append(f"{value} IN {bind(sorted(scan.only[name]), 'Array(String)')}")
    groups = ([] if step == "0" else [step]) + values
    return filled(
        "spend",
        arm=str(number),
        step=step,
        values=", ".join(values),
        figures=", ".join(f"{sql if name in scan.figures else 'NULL'} AS sum_{name}" for name, sql in FIGURES.items()),
        conditions=" AND ".join(conditions),
        groups=f"GROUP BY {', '.join(groups)}" if groups else "",
    )


def _day(instant: datetime, bind: Bound) -> str:
    return f"toDate({bind((instant - _EPOCH).days, 'Int32')})"
