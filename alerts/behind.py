"""The question behind a figure, for people: SQL over `charges` as it can be pasted into `tallystick sql`."""

from datetime import datetime, timedelta
from typing import Final

from tallystick.alerts.model import Measure
from tallystick.alerts.spend import Wanted
from tallystick.attribution.spend import DIMENSIONS

_BUCKETS: Final = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
_FIGURES: Final = {
    Measure.COST: "sum(cost_usd) AS cost_usd",
    Measure.TOKENS: " + ".join(f"ifNull(sum({name}), 0)" for name in _BUCKETS) + " AS tokens",
    Measure.CALLS: "sum(calls) AS calls",
}
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})


def sql_behind(wanted: Wanted, value: str) -> str:
    """What answers with a budget's figure, for one of its values (""): one row, one column, in the budget's measure. UTC."""
    start, end = wanted.period.start, wanted.period.end
    if _midnight(start) and _midnight(end):
        # The ledger's projection answers days.
        conditions = [f"toDate(started_at) >= '{start:%Y-%m-%d}'", f"toDate(started_at) < '{end:%Y-%m-%d}'"]
    else:
        conditions = [f"started_at >= '{start:%Y-%m-%d %H:%M:%S.%f}'", f"started_at < '{end:%Y-%m-%d %H:%M:%S.%f}'"]
    fixed = {**wanted.scope, **({wanted.each: (value,)} if wanted.each else {})}
    conditions += [f"{_dimension(name)} {_among(values)}" for name, values in sorted(fixed.items())]
    return "\n".join((f"SELECT {_FIGURES[wanted.measure]}", "FROM charges", f"WHERE {' AND '.join(conditions)}"))


def _midnight(instant: datetime) -> bool:
    return instant - instant.replace(hour=0, minute=0, second=0, microsecond=0) == timedelta(0)


def _dimension(name: str) -> str:
    if name.startswith("tag:"):
        return f"tags[{_literal(name.removeprefix('tag:'))}]"
    return DIMENSIONS[name]


def _among(values: tuple[str, ...]) -> str:
    return f"= {_literal(values[0])}" if len(values) == 1 else f"IN ({', '.join(map(_literal, values))})"


def _literal(text: str) -> str:
    return f"'{text.translate(_ESCAPES)}'"
