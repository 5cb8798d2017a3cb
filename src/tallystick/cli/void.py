"""`tallystick void`: calls that are taken back."""

import click

from tallystick.cli.access import connect
from tallystick.cli.corrections import below, period_options
from tallystick.cli.options import Form, connected, formatted
from tallystick.cli.output import Field, emit, text
from tallystick.cli.who import me
from tallystick.settings import Settings


@click.command()
@click.argument("trace_id", required=False)
@click.argument("span_id", required=False)
@click.option("--duplicates", is_flag=True, help="Calls that several spans told of, all but the one that knows most.")
@period_options
@formatted
@connected
def void(
    *, trace_id: str | None, span_id: str | None, duplicates: bool, since: str | None, until: str | None, tenant: str | None,
    reason: str | None, dry_run: bool, form: Form, settings: Settings,
) -> None:  # fmt: skip
    """Take calls back: one by its ids, or with --duplicates those that were told twice and came too far apart to be noticed.

    A void is an entry with opposite signs; it can be undone. Duplicates have the same tenant and answer's id, and are judged as spans
    that arrive together are.

    \b
    tallystick void --duplicates --since 30d --dry-run
    tallystick void --duplicates --since 30d --reason 'gateway and SDK both metered'
    tallystick void 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 --reason 'load test'
    """
    question = {"tenant": tenant, "reason": reason or "dry run", "dry_run": dry_run}
    if duplicates == (trace_id is not None) or (trace_id is None) != (span_id is None):
        raise click.UsageError("name a call by TRACE_ID and SPAN_ID, or give --duplicates")
    if duplicates and since is None:
        raise click.UsageError("--duplicates needs --since")
    with connect(settings) as ledger:
        if duplicates:
            found = ledger.void_duplicates({**question, "since": since, "until": until}, who=me())
        else:
            found = ledger.void({**question, "trace_id": trace_id, "span_id": span_id}, who=me())
    if form == "json":
        emit(form, [found], [])
        return
    emit(form, found["voided"], _FIELDS)
    if form == "table":
        more = found["calls"] - len(found["voided"])
        lines = [f"{more:,} more"] if more else []
        click.echo("\n".join([*lines, f"{found['calls']:,} of {found['looked_at']:,} calls voided", below(found)]), err=True)


_FIELDS = (Field("tenant", "tenant", text), Field("trace_id", "trace id", text), Field("span_id", "span id", text))
