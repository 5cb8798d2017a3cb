"""Spend by any dimensions over a period: the question, checked, as SQL over `charges`."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

_TEMPLATE: Final = (Path(__file__).parent / "queries" / "spend.sql").read_text(encoding="utf-8")
_DAY_NS: Final = 86_400_000_000_000

_COLUMNS: Final = (
    "customer", "feature", "agent", "team", "user", "session", "service", "environment", "tenant", "provider", "request_model",
    "response_model", "operation", "service_tier", "status", "error_type", "cache_hit", "usage_source", "entry", "price_id",
)  # fmt: skip

DIMENSIONS: Final[Mapping[str, str]] = {
    **{name: name for name in _COLUMNS},
    "model": "if(response_model != '', response_model, request_model)",
    "hour": "toStartOfHour(started_at)",
    "day": "toDate(started_at)",
    "month": "toStartOfMonth(toDate(started_at))",
}
"""What spend can be grouped and filtered by, with its SQL; `tag:NAME` besides.

Days and months are UTC's; months are made of days, for the ledger's projection keeps nothing finer.
"""

_IN_TIME_ORDER: Final = ("hour", "day", "month")


class UnknownDimension(ValueError):
    """No such dimension. The message proposes what may have been meant."""


class Query(NamedTuple):
    """SQL and the values that bind to its `{name:Type}`."""

    text: str
    params: dict[str, Any]


Ask = Callable[[str, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""Answers SQL, with what binds to it, by rows of column and value."""


def spend(
    dimensions: Sequence[str],
    since_ns: int,
    until_ns: int,
    *,
    where: Mapping[str, str] | None = None,
    limit: int | None = None,
    offset: int = 0,
    as_of_ns: int | None = None,
) -> Query:
    """The query for spend in [since, until), nanoseconds since 1970, by `dimensions` (none: one row), filtered by equality.

    Its columns are the dimensions, calls, tokens by bucket, cost_usd (NULL: nothing in it is priced), priced_calls, tokens and
    priced_tokens, and the same over all groups as `all_…`. Groups are ordered by time if grouped by time, else the dearest first;
    `offset` of them are left out. as_of_ns: only what was entered before. Raises UnknownDimension.
    """
    params: dict[str, Any] = {"limit": limit if limit is not None else 2**63 - 1, "offset": offset}
    expressions = [(name, expression(name, f"by_{index}", params)) for index, name in enumerate(dimensions)]
    conditions = [period(since_ns, until_ns, params), *filters(where or {}, params), *entered_before(as_of_ns, params)]
    order = [quoted(name) for name in dimensions if name in _IN_TIME_ORDER]
    order += ["group_cost DESC NULLS LAST", "group_tokens DESC", *(quoted(name) for name in dimensions)]
    text = (
        _TEMPLATE.replace("/*dimensions*/", "".join(f"{quoted(name)}, " for name in dimensions))
        .replace("/*expressions*/", "".join(f"{sql} AS {quoted(name)}, " for name, sql in expressions))
        .replace("/*conditions*/", " AND ".join(conditions))
        .replace("/*order*/", ", ".join(order))
    )
    return Query(text, params)


def filters(where: Mapping[str, str], params: dict[str, Any]) -> list[str]:
    """Conditions that dimensions have these values, which are added to `params`. Raises UnknownDimension."""
    conditions = []
    for index, (name, value) in enumerate(where.items()):
        params[f"where_{index}"] = value
        conditions.append(f"toString({expression(name, f'where_tag_{index}', params)}) = {{where_{index}:String}}")
    return conditions


def entered_before(as_of_ns: int | None, params: dict[str, Any]) -> list[str]:
    """The condition that an entry was made before, nanoseconds since 1970; none without one."""
    if as_of_ns is None:
        return []
    params["as_of"] = as_of_ns
    return ["entered_at < fromUnixTimestamp64Nano({as_of:Int64}, 'UTC')"]


def coverage(row: Mapping[str, Any], prefix: str = "") -> tuple[float | None, float | None]:
    """Shares of calls and of tokens that are priced, 0 to 1; None where there are none. row: of `spend`; prefix `all_`: of all groups."""
    return (
        share(row[f"{prefix}priced_calls"], row[f"{prefix}calls"]),
        share(row[f"{prefix}priced_tokens"], row[f"{prefix}tokens"]),
    )


def share(part: int | Decimal | None, whole: int | Decimal | None) -> float | None:
    """part / whole; None where one is unknown or there is nothing to have a share of."""
    return None if part is None or not whole else float(part / whole)


def check_dimension(name: str) -> None:
    """Raises UnknownDimension unless spend can be grouped by `name`."""
    if name in DIMENSIONS or (name.startswith("tag:") and len(name) > len("tag:")):
        return
    close = get_close_matches(name, DIMENSIONS, n=1)
    meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(DIMENSIONS)} and tag:NAME"
    raise UnknownDimension(f"no dimension {name!r}: {meant}")


def expression(name: str, tag_param: str, params: dict[str, Any]) -> str:
    """SQL of a dimension; a tag's name is added to `params` as `tag_param`. Raises UnknownDimension."""
    check_dimension(name)
    if name in DIMENSIONS:
        return DIMENSIONS[name]
    params[tag_param] = name.removeprefix("tag:")
    return f"tags[{{{tag_param}:String}}]"


def period(since_ns: int, until_ns: int, params: dict[str, Any], prefix: str = "") -> str:
    """The condition that an entry belongs to [since, until), nanoseconds since 1970; its values are added to `params`."""
    since, until = f"{prefix}since", f"{prefix}until"
    if since_ns % _DAY_NS == 0 and until_ns % _DAY_NS == 0:
        # The projection knows days only: asked in these terms it can answer.
        params |= {since: since_ns // _DAY_NS, until: until_ns // _DAY_NS}
        return f"toDate(started_at) >= toDate({{{since}:Int32}}) AND toDate(started_at) < toDate({{{until}:Int32}})"
    params |= {since: since_ns, until: until_ns}
    lower, upper = (f"fromUnixTimestamp64Nano({{{name}:Int64}}, 'UTC')" for name in (since, until))
    return f"started_at >= {lower} AND started_at < {upper}"


def quoted(name: str) -> str:
    """The name of a column."""
    # A tag's name is free text: it comes back as a column's name, and as nothing else.
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
