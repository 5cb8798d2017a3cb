"""`tallystick audit`: what was lost between a call and its row, and where."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from tallystick.cli.access import sending_url
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import Field, count, print_json, print_table, text
from tallystick.client import Client
from tallystick.settings import Settings

_SUMS: Final = ("lost", "received", "calls", "dropped", "rejected", "untold")
_BY: Final = ("service", "hour")
_TITLES: Final = {"lost": "lost there"}
_COLOURS: Final = {"lost": "red", "unfinished": "yellow", "kept": "yellow"}


@click.command()
@click.option(
    "--since", default="24h", show_default=True, metavar="TIME", help="From when on: an age (24h, 7d) or a time (UTC if no zone)."
)
@click.option("--by", default="service,hour", show_default=True, metavar="NAMES", help="service, hour, or both.")
@click.option(
    "--settle",
    type=click.IntRange(0, 86_400),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="After which what hasn't come won't.",
)
@json_option
@connected
def audit(*, since: str, by: str, settle: int, as_json: bool, settings: Settings) -> None:
    """Say what was lost between a call and its row in the ledger, where, and what to do. Fails (1) if anything was.

    emitted is what collectors say that ended in their services; "–" where senders tell nothing (other SDKs): what those lose before the server
    is not to be known. Of what was received, calls are in the ledger, the rest was dropped (no model call) or rejected (unusable). docs/audit.md
    says what each figure proves. With --json, an object a row: of kind "summary" (the first), "finding" and "spans".

    \b
    tallystick audit
    tallystick audit --since 7d --by service
    tallystick audit --since 2h --settle 60 --json
    """
    names = [name.strip() for name in by.split(",") if name.strip()]
    if not names or not set(names) <= set(_BY):
        raise click.BadParameter(f"{by!r}: service, hour, or both", param_hint="--by")
    with Client(sending_url(settings), settings.key, timeout_s=150) as client:
        found = client.audit(since=since, settle_s=settle)
    rows = _summed(found.pop("hours"), names)
    findings = found.pop("findings")
    if as_json:
        print_json(
            [
                {"kind": "summary", **found},
                *({"kind": "finding", **one} for one in findings),
                *({"kind": "spans", **row} for row in rows),
            ]
        )
    else:
        _print(found, findings, rows, names)
    if not found["clean"]:
        raise click.exceptions.Exit(1)


def _summed(hours: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """By the named ones alone; emitted is unknown only where it is in all."""
    sums: dict[tuple[str, ...], dict[str, Any]] = {}
    for hour in hours:
        key = tuple(hour[name] for name in names)
        row = sums.setdefault(key, {**dict(zip(names, key, strict=True)), "emitted": None, **dict.fromkeys(_SUMS, 0)})
        for name in _SUMS:
            row[name] += hour[name]
        if hour["emitted"] is not None:
            row["emitted"] = (row["emitted"] or 0) + hour["emitted"]
    return list(sums.values())


def _print(
    found: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> None:
    if rows:
        fields = [Field(name, name, text) for name in names]
        fields += [Field(name, _TITLES.get(name, name), count, right=True) for name in ("emitted", *_SUMS)]
        print_table(rows, fields)
    for one in findings:
        amount = ", ".join(f"{one[name]:,} {name}" for name in ("spans", "messages") if one[name] is not None)
        click.echo(
            f"{click.style(one['state'], fg=_COLOURS[one['state']])}  {one['place']}: {amount}: {one['what']}\n      {one['todo']}"
        )
    if found["untold_spans"]:
        click.echo(
            f"{found['untold_spans']:,} spans came from senders that don't tell what they sent: what those lost before the server nobody can count"
        )
    if found["waiting"] is not None:
        click.echo(f"Kafka: {found['waiting']:,} messages wait, {found['lag_s']:.0f} s")
    if found["freshness_s"] is not None:
        click.echo(f"newest call: {found['freshness_s']:.0f} s ago")
    unfinished = f", {found['unfinished_spans']:,} on their way" if found["unfinished_spans"] else ""
    if found["clean"]:
        click.secho(f"0 lost{unfinished}", fg="green")
    else:
        messages = f" and {found['lost_messages']:,} messages of Kafka" if found["lost_messages"] else ""
        click.secho(f"lost: at least {found['lost_spans']:,} spans{messages}{unfinished}", fg="red")
