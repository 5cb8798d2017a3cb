"""`tallystick costs`: who and what caused which cost."""

import time
from collections.abc import Sequence
from typing import Any

import click

from tallystick.attribution.spend import UnknownDimension, check_dimension, coverage, share, spend
from tallystick.cli.access import Ledger, connect
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, count, emit, money, percent, text, tokens
from tallystick.cli.sql import named
from tallystick.cli.when import end_of_day, moment_option
from tallystick.settings import Settings

_TABLE_ROWS = 20
_FIGURES = ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")


@click.command()
@click.option("--by", default="customer", show_default=True, metavar="DIMENSIONS", help="What to group by; `total` is one sum.")
@moment_option("--since", default="30d")
@moment_option("--until", default=None)
@click.option("--where", "where", multiple=True, metavar="DIMENSION=VALUE", help="Only such calls; repeatable.")
@moment_option("--as-of", default=None)
@click.option("--limit", type=click.IntRange(min=0), help=f"Most groups, 0 is all; {_TABLE_ROWS} in a table, all otherwise.")
@formatted
@connected
def costs(
    *,
    by: str,
    since: int,
    until: int | None,
    where: Sequence[str],
    as_of: int | None,
    limit: int | None,
    form: Form,
    settings: Settings,
) -> None:
    """What was spent, by customer, feature, agent or any other dimension, the dearest first.

    Dimensions are customer, feature, agent, team, user, session, service, environment, tenant, provider, model, request_model,
    response_model, operation, service_tier, status, error_type, cache_hit, usage_source, entry, price_id, hour, day, month (UTC)
    and tag:NAME. Input tokens are those that neither came from a cache (read) nor went into one (write). What has no price is
    unpriced, never 0: the share of tokens that are priced stands beside every amount. --as-of leaves out what was entered at that time or
    later: calls that came late, and corrections.

    \b
    tallystick costs --by customer,feature --since 30d
    tallystick costs --by day --where customer=acme --since 2026-11-01 --until 2026-12-01 --csv
    tallystick costs --by model --json
    tallystick costs --since 2026-10-01 --until 2026-11-01 --as-of 2026-11-03
    """
    dimensions = _dimensions(by)
    filters = named(where)
    until_ns = end_of_day(time.time_ns()) if until is None else until
    if since >= until_ns:
        raise click.UsageError("--since isn't before --until, which is the end of this hour unless given")
    most = limit or None if limit is not None or form != "table" else _TABLE_ROWS
    try:
        query = spend(dimensions, since, until_ns, where=filters, limit=most, as_of_ns=as_of)
    except UnknownDimension as error:
        raise click.BadParameter(str(error), param_hint="--where") from None
    with connect(settings) as ledger:
        rows = ledger.sql(query.text, query.params).dicts()
    show(rows, dimensions, form)
    if form == "table":
        click.echo(_below(rows), err=True)


def by_dimensions(
    ledger: Ledger, dimensions: Sequence[str], since_ns: int, until_ns: int, limit: int | None = None
) -> list[dict[str, Any]]:
    """Rows of attribution.spend over a period; see its columns there."""
    query = spend(dimensions, since_ns, until_ns, limit=limit)
    return ledger.sql(query.text, query.params).dicts()


def show(rows: Sequence[dict[str, Any]], dimensions: Sequence[str], form: Form) -> None:
    """Print rows of attribution.spend, in a table with the total over all groups below."""
    shown = [{**{name: row[name] for name in dimensions}, **_figures(row, row)} for row in rows]
    footer = None
    if rows:
        first = rows[0]
        footer = _figures({name: first[f"all_{name}"] for name in (*_FIGURES, "priced_calls", "tokens", "priced_tokens")}, first)
        if dimensions:
            footer[dimensions[0]] = f"total of {first['all_groups']:,}"
    fields = [Field(name, name.removeprefix("tag:"), text) for name in dimensions]
    emit(form, shown, [*fields, *_FIELDS], footer if dimensions else None)


_FIELDS = [
    Field("calls", "calls", count, right=True),
    Field("input_tokens", "input", tokens, right=True),
    Field("cache_read_tokens", "read", tokens, right=True),
    Field("cache_write_tokens", "write", tokens, right=True),
    Field("output_tokens", "output", tokens, right=True),
    Field("cost_usd", "USD", money, right=True),
    Field("share", "share", percent, right=True),
    Field("tokens_priced", "priced", percent, right=True),
]
"""Of a table; JSON and CSV have `calls_priced` too, and tokens to the last."""


def _figures(row: dict[str, Any], totals: dict[str, Any]) -> dict[str, Any]:
    calls_priced, tokens_priced = coverage(row)
    return {
        **{name: row[name] for name in _FIGURES},
        "share": share(row["cost_usd"], totals["all_cost_usd"]),
        "calls_priced": calls_priced,
        "tokens_priced": tokens_priced,
    }


def _below(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "no calls in this time"
    first = rows[0]
    calls_priced, tokens_priced = coverage(first, "all_")
    left_out = first["all_groups"] - len(rows)
    lines = [f"{left_out:,} more groups are in the total; --limit 0 shows them"] if left_out else []
    lines.append(f"{percent(tokens_priced)} of tokens and {percent(calls_priced)} of calls are priced")
    if first["all_priced_calls"] != first["all_calls"]:
        lines[-1] += "; `tallystick prices missing` lists the rest"
    return "\n".join(lines)


def _dimensions(by: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("nothing to group by; `total` is the sum of everything", param_hint="--by")
    if names == ["total"]:
        return []
    for name in names:
        try:
            check_dimension(name)
        except UnknownDimension as error:
            raise click.BadParameter(str(error), param_hint="--by") from None
    return names
