"""`tallystick migrate`: the ledger's schema, Kafka's topics, and a directory's ledger into a server's."""

import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import json_option, setting_option
from tallystick.cli.output import Field, count, money, print_json, print_table, text, tokens
from tallystick.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from tallystick.ingest.move import Compared, Totals
    from tallystick.server.moving import Entered, Plan

_PATIENCE_S: Final = 60
"""How long brokers may be away: they may start at the same time."""

_SHOWN: Final = 40
"""Lines of a table; --json has all."""


@click.command()
@click.option("--to", metavar="URL", help="Move the directory's ledger to this server, named as in TALLYSTICK_CLICKHOUSE.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 where something is missing.")
@click.option("--dry-run", is_flag=True, help="With --to: say what would be moved.")
@click.option("--verify-only", is_flag=True, help="With --to: move nothing, compare both sides.")
@click.option(
    "--partitions", type=click.IntRange(1), help="Of the topic that receivers write, at least; without it a new topic has 12."
)
@click.option("--replication", type=click.IntRange(0), default=0, help="Copies of each message; 0, the default, is the brokers'.")
@json_option
@setting_option("data")
def migrate(
    *,
    to: str | None,
    check: bool,
    dry_run: bool,
    verify_only: bool,
    partitions: int | None,
    replication: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Bring the ledger (TALLYSTICK_CLICKHOUSE's, else the directory's) to this version's schema, and Kafka's topics into being.

    With --to, move a directory's ledger to a ClickHouse server or cluster, in pieces each of which stands there as a whole or not at all. Killed, it
    goes on when it is started again, and doubles nothing. Then both sides are compared, by month and tenant: exit 1 where anything of the directory
    isn't there. The directory stays as it is; what uses it is stopped before. docs/migrate.md has the order of things.

    \b
    tallystick migrate
    tallystick migrate --check
    tallystick migrate --to clickhouse://tallystick_admin@db:8123/tallystick --data tallystick-data
    tallystick migrate --to clickhouse://tallystick_admin@db:8123/tallystick --verify-only --json
    """
    settings = Settings.load(**flags)
    # The engine moves into its directory.
    settings = replace(settings, data=settings.data.absolute())
    if to is None:
        if dry_run or verify_only:
            raise click.UsageError("--dry-run and --verify-only are for --to; without it there is --check")
        _to_the_present(settings, partitions, replication, check=check, as_json=as_json)
    elif check or (dry_run and verify_only):
        raise click.UsageError("--to takes one of --dry-run and --verify-only, and no --check")
    else:
        _to_a_server(settings, replace(settings, clickhouse=to), dry_run=dry_run, verify_only=verify_only, as_json=as_json)


def _refused(error: "ClickHouseError") -> Failure:
    from clickhouse_connect.driver.exceptions import StreamFailureError

    from tallystick.ingest.store import error_name

    name = error_name(error)
    if isinstance(error, StreamFailureError) and name == type(error).__name__:
        return Failure(
            "ClickHouse went away while it answered", "what was done stays; run the same command again, and it goes on"
        )
    hint = "a user that may make tables is needed, tallystick_admin say: docs/clickhouse.md" if name == "ACCESS_DENIED" else ""
    return Failure(f"the engine fails: {name}", hint)


def _to_the_present(settings: Settings, partitions: int | None, replication: int, *, check: bool, as_json: bool) -> None:
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from tallystick.ingest import migrate as schema
    from tallystick.server.stores import open_ledger

    if check and settings.clickhouse is None and not (settings.data / "engine").is_dir():
        raise Failure(f"there is no ledger in {settings.data}", "`tallystick migrate` makes one")
    store = open_ledger(settings)
    try:
        if check:
            schema.require_schema(store)
            done = []
        else:
            done = [f"applied migration {name}" for name in schema.migrate(store, settings.retention_days)]
    except ClickHouseError as error:
        raise _refused(error) from None
    finally:
        store.close()
    if settings.kafka:
        done += _topics(settings, partitions, replication, check=check)
    if as_json:
        print_json([{"done": what} for what in done])
    else:
        click.echo("\n".join(done) or "nothing is missing")


def _topics(settings: Settings, partitions: int | None, replication: int, *, check: bool) -> list[str]:
    from tallystick.ingest.flight import NoBroker
    from tallystick.ingest.topics import ensure_topics
    from tallystick.server.brokers import brokers_of

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            done = ensure_topics(
                brokers_of(settings), settings.kafka_received, settings.kafka_dead_letters,
                partitions=partitions, replication=replication, check=check,
            )  # fmt: skip
        except NoBroker as error:
            if time.monotonic() >= until:
                raise Failure(f"{error}", "see TALLYSTICK_KAFKA in docs/settings.md") from None
            click.echo(f"{error}; waiting for it", err=True)
            time.sleep(1)
        except ValueError as error:
            raise Failure(f"{error}") from None
        else:
            break
    if check and done:
        raise Failure("; ".join(done), "run `tallystick migrate`")
    return done


def _to_a_server(settings: Settings, to: Settings, *, dry_run: bool, verify_only: bool, as_json: bool) -> None:
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from tallystick.ingest.errors import DataDirectoryInUse, StoreUnavailable
    from tallystick.ingest.migrate import require_schema
    from tallystick.ingest.move import Mover
    from tallystick.ingest.turns import open_turns
    from tallystick.server import moving

    def tell(progress: object) -> None:
        click.echo(f"  {progress}", err=True)

    try:
        with moving.both(settings, to, prepare=not (dry_run or verify_only)) as (source, target):
            if not dry_run:
                require_schema(target)
            plan = moving.plan(source.client(), None if dry_run else target.client(), datetime.now(UTC))
            for part in plan.damaged:
                click.echo(f"the engine couldn't read a part of the directory, which is left out: {part}", err=True)
            if plan.left:
                click.echo(f"{plan.left:,} entries have reached the age at which they are deleted, and stay behind", err=True)
            if dry_run:
                _show_plan(plan, as_json=as_json)
                return
            for record in moving.records(target):
                click.echo(
                    f"{record.state} here before: {record.rows:,} rows of {record.source}, {record.at:%Y-%m-%d %H:%M} UTC",
                    err=True,
                )
            began = datetime.now(UTC)
            named = moving.Record(f"{socket.gethostname()}:{settings.data}", began, began, "moving", plan.rows)
            mover = Mover(source.client(), target.client(), open_turns(target))
            if not verify_only:
                before = moving.standing(target)
                moving.record(target, named)
                _say(moving.enter(mover, plan, tell), before)
            compared = moving.compare(mover, plan)
            if not verify_only and not any(one.missing for one in compared):
                moving.record(target, named._replace(state="moved", at=datetime.now(UTC)), compared)
    except DataDirectoryInUse as error:
        raise Failure(
            str(error),
            "stop `tallystick up` there. To keep receiving meanwhile, let senders send to the new server first: docs/migrate.md",
        ) from None
    except ClickHouseError as error:
        raise _refused(error) from None
    except StoreUnavailable as error:
        raise Failure(f"{error}", error.hint or "what was moved stays; run the same command again, and it goes on") from None
    _show(compared, as_json=as_json)
    missing = sum(one.missing for one in compared)
    if missing or plan.damaged:
        raise Failure(
            f"{missing:,} rows of the directory aren't at the target" if missing else "a part of the directory couldn't be read",
            "run the same command again" if missing else "restore it from a backup, and run the same command again",
        )
    click.echo(
        f"all of the directory is at the target. Not in the ledger: API keys ({settings.data / 'keys.json'}: copy it, and name the copy by"
        " TALLYSTICK_KEYS) and what was alerted (alerts.db beside it, unless TALLYSTICK_ALERTS_URL names a database)",
        err=True,
    )


def _say(entered: "Entered", before: int) -> None:
    if before:
        click.echo(f"the target's ledger held {before:,} entries before; they are kept", err=True)
    click.echo(f"entered {entered.rows:,} rows", err=True)
    if entered.told_twice:
        click.echo(
            f"{entered.told_twice:,} calls had been sent to the target, too: the directory's entries count, and void entries take the others back",
            err=True,
        )


def _show_plan(plan: "Plan", *, as_json: bool) -> None:
    rows = [{"table": table.name, "rows": sum(piece.rows for piece in cut)} for table, cut in plan.pieces.items()]
    if as_json:
        print_json(rows)
    else:
        print_table(rows, [Field("table", "table", text), Field("rows", "rows", count, right=True)])


def _show(compared: Sequence["Compared"], *, as_json: bool) -> None:
    """What was compared: the directory's totals, and what the target has of them."""
    rows = [
        {
            "table": one.table, "month": one.month, "tenant": one.tenant, **_totals(one.source), "missing": one.missing,
            "target": _totals(one.target), "found": _found(one),
        }
        for one in compared
    ]  # fmt: skip
    if as_json:
        print_json(rows)
        return
    shown = sorted(rows, key=lambda row: not row["missing"])[:_SHOWN]
    # Buckets after output are parts of others.
    summed = [row | {"tokens": sum(filter(None, list(row["tokens"].values())[:5]))} for row in shown]
    print_table(summed, _FIELDS)
    if len(rows) > _SHOWN:
        click.echo(f"{len(rows) - _SHOWN:,} more lines; --json shows all", err=True)


def _totals(of: "Totals") -> dict[str, Any]:
    from tallystick.ingest.move import TOKENS

    return {
        "entries": of.entries, "calls": of.calls, "tokens": dict(zip(TOKENS, of.tokens, strict=True)), "cost_usd": of.cost_usd,
        "hash": of.hash,
    }  # fmt: skip


def _found(one: "Compared") -> str:
    if one.missing:
        return f"{one.missing:,} missing"
    if one.source == one.target:
        return "equal"
    return f"all, and {one.more:,} more" if one.more else "all, some of them newer"


_FIELDS = [
    Field("table", "table", str),
    Field("month", "month", str),
    Field("tenant", "tenant", str),
    Field("entries", "entries", count, right=True),
    Field("calls", "calls", count, right=True),
    Field("tokens", "tokens", tokens, right=True),
    Field("cost_usd", "USD", lambda value: "–" if value is None else money(value), right=True),
    Field("found", "at the target", str),
]
