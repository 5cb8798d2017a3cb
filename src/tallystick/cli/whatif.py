"""`tallystick whatif`: what calls would have cost at other prices."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, count, emit, money, percent, text, tokens
from tallystick.settings import Settings

_TABLE_ROWS = 20
_MONEY = ("cost_usd", "as_if_usd", "difference_usd")


@click.command()
@click.option(
    "--since", default="30d", show_default=True, metavar="TIME", help="An age (30d, 24h, 15m) or a time (UTC if no zone)."
)
@click.option("--until", metavar="TIME", help="Before when; until now if not given.")
@click.option(
    "--prices", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Prices of this file instead of yours."
)
@click.option("--tier", default="", help="Service tier of all calls: batch, flex, priority, standard.")
@click.option(
    "--model", "models", multiple=True, metavar="OLD=NEW", help="Another model instead; OLD may be a pattern; repeatable."
)
@click.option("--discount", "discounts", multiple=True, metavar="PROVIDER=PERCENT", help="Off public list prices; repeatable.")
@click.option("--by", default="model", show_default=True, metavar="DIMENSIONS", help="What to group by; `total` is one sum.")
@click.option("--where", multiple=True, metavar="DIMENSION=VALUE", help="Only such calls; repeatable.")
@click.option("--limit", type=click.IntRange(min=0), help=f"Most groups, 0 is all; {_TABLE_ROWS} in a table, all otherwise.")
@formatted
@connected
def whatif(
    *,
    since: str,
    until: str | None,
    prices: Path | None,
    tier: str,
    models: Sequence[str],
    discounts: Sequence[str],
    by: str,
    where: Sequence[str],
    limit: int | None,
    form: Form,
    settings: Settings,
) -> None:
    """What calls would have cost at other prices: another model, service tier, discount, or a whole price file, also combined.

    The ledger isn't touched. Tokens stay what they were. `as is` is the ledger's total, corrections included; of what has no price on
    one side, the difference is unknown.

    \b
    tallystick whatif --since 2026-10-01 --until 2026-11-01 --tier batch
    tallystick whatif --model 'gpt-5*=gpt-5-mini' --model claude-opus-4-5=claude-sonnet-4-5 --by customer
    tallystick whatif --discount openai=20% --discount 'anthropic/claude-opus-*=12.5%'
    tallystick whatif --prices next-year.yaml --where feature=reports --json
    """
    most = limit or None if limit is not None or form != "table" else _TABLE_ROWS
    question: dict[str, Any] = {
        "since": since, "until": until, "by": by, "where": list(where), "model": list(models), "tier": tier,
        "discount": list(discounts), "limit": most,
    }  # fmt: skip
    if prices is not None:
        try:
            question["prices"] = prices.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise Failure(f"{prices} is no text in UTF-8") from None
    with connect(settings) as ledger:
        found = ledger.what_if(question)
    dimensions = list(found["rows"][0]["group"]) if found["rows"] else []
    rows = [{**row["group"], **_figures(row)} for row in found["rows"]]
    footer = (
        {**({dimensions[0]: f"total of {found['groups']:,}"} if dimensions else {}), **_figures(found["total"])} if rows else None
    )
    fields = [Field(name, name.removeprefix("tag:"), text) for name in dimensions]
    emit(form, rows, [*fields, *_FIELDS], footer if dimensions else None)
    if form == "table":
        click.echo(_below(found, len(rows)), err=True)


_FIELDS = [
    Field("calls", "calls", count, right=True),
    Field("tokens", "tokens", tokens, right=True),
    Field("cost_usd", "as is USD", money, right=True),
    Field("tokens_priced", "priced", percent, right=True),
    Field("as_if_usd", "as if USD", money, right=True),
    Field("as_if_tokens_priced", "priced", percent, right=True),
    Field("difference_usd", "difference", lambda value: "unknown" if value is None else money(value), right=True),
]


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "calls": row["calls"],
        "tokens": row["tokens"],
        **{name: None if row[name] is None else Decimal(row[name]) for name in _MONEY},
        "calls_priced": _share(row["priced_calls"], row["calls"]),
        "as_if_calls_priced": _share(row["as_if_priced_calls"], row["calls"]),
        "tokens_priced": _share(row["priced_tokens"], row["tokens"]),
        "as_if_tokens_priced": _share(row["as_if_priced_tokens"], row["tokens"]),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _below(found: Mapping[str, Any], shown: int) -> str:
    total = found["total"]
    if total is None:
        return "no calls in this time"
    lines = [f"{left:,} more groups are in the total; --limit 0 shows them"] if (left := found["groups"] - shown) else []
    as_is, as_if = (percent(_share(total[name], total["tokens"])) for name in ("priced_tokens", "as_if_priced_tokens"))
    if total["priced_tokens"] == total["as_if_priced_tokens"]:
        lines.append(f"{as_is} of tokens are priced, as is and as if")
    else:
        lines.append(f"{as_is} of tokens are priced as is, {as_if} as if: the totals aren't of the same calls")
    return "\n".join([*lines, *found["notes"]])
