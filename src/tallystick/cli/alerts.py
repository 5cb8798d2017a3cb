"""`tallystick alerts`: what was said, how it reached people, and what holds it back."""

from datetime import timedelta
from typing import Any

import click

from tallystick.cli.access import running
from tallystick.cli.failure import Failure
from tallystick.cli.options import connected, json_option, setting_option
from tallystick.cli.output import Field, count, print_json, print_table, text
from tallystick.cli.when import Length
from tallystick.cli.who import me
from tallystick.settings import Settings


@click.group()
def alerts() -> None:
    """Alerts: what budgets and rules said, and what became of it.

    \b
    tallystick alerts list                what was said
    tallystick alerts status              how channels and evaluations fare
    tallystick alerts test team           send a test message to a channel
    tallystick alerts silence acme --for 2h --why "load test"
    tallystick alerts run                 judge budgets, in a process of its own
    """


@alerts.command()
@setting_option("clickhouse")
@setting_option("config")
@setting_option("health_port")
@setting_option("host")
@setting_option("data")
def run(**flags: Any) -> None:
    """Judge budgets and rules over a ledger on a ClickHouse server, and deliver what they say. `tallystick up` does so by itself.

    Of several, one judges and all deliver, where they share a database (TALLYSTICK_ALERTS_URL, PostgreSQL). Prints `ready URL`, where health and
    figures are; SIGTERM and Ctrl-C finish what is under way.

    \b
    tallystick alerts run --clickhouse clickhouse://tallystick_alerts@ch1:8123/tallystick --config tallystick.yaml
    """
    settings = Settings.load(**flags)
    if settings.clickhouse is None:
        raise click.UsageError(
            "no server holds the ledger: give --clickhouse; over a ledger in a directory `tallystick up` judges"
        )
    if not settings.alerts_every_s:
        raise click.UsageError("TALLYSTICK_ALERTS_EVERY_S is 0: nothing would be judged")
    if settings.config is not None and not settings.config.is_file():
        raise click.BadParameter(f"{settings.config} is no file", param_hint="--config")
    from tallystick.alerts.config_yaml import ConfigError
    from tallystick.alerts.database import LedgerError
    from tallystick.server.run_alerts import run_alerts

    try:
        run_alerts(settings)
    except ConfigError as error:
        raise Failure(str(error), "`tallystick budgets validate FILE` says the same without starting anything") from None
    except LedgerError as error:
        raise Failure(str(error), "see TALLYSTICK_ALERTS_URL in docs/settings.md") from None


@alerts.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Most messages.")
@click.option("--subject", help="Only of this budget or rule.")
@json_option
@connected
def list_(*, limit: int, subject: str | None, as_json: bool, settings: Settings) -> None:
    """List what was said, the newest first, and to which channels it went.

    \b
    tallystick alerts list
    tallystick alerts list --subject acme --limit 100 --json
    """
    with running(settings) as server:
        found = server.alerts(limit, subject=subject)["alerts"]
    if as_json:
        print_json(found)
    elif found:
        rows = [
            {
                "at": one["at"],
                "title": one["message"]["title"] if one["message"] else f"{one['subject']}: a newer version wrote it",
                "went": ", ".join(map(_went, one["deliveries"])) or "nobody",
                "ack": one["acknowledged"]["who"] if one["acknowledged"] else "",
            }
            for one in found
        ]
        print_table(
            rows,
            [Field("at", "at", _second), Field("title", "said", str), Field("went", "to", str), Field("ack", "in hand", str)],
        )
    else:
        click.echo("nothing was said", err=True)


@alerts.command()
@json_option
@connected
def status(*, as_json: bool, settings: Settings) -> None:
    """Say how evaluations and channels fare, with the last error of each, and what keeps parts of the configuration out.

    \b
    tallystick alerts status
    tallystick alerts status --json
    """
    with running(settings) as server:
        found = server.alerts_status()
    if as_json:
        print_json([found])
        return
    click.echo(evaluations(found))
    if found["channels"]:
        fields = [
            Field("name", "channel", text),
            Field("type", "type", lambda value: value or "unusable"),
            *(Field(state, state, count, right=True) for state in ("sent", "pending", "sending", "refused", "silenced")),
            Field("last_sent", "last sent", lambda value: _second(value) if value else ""),
            Field("last_error", "last error", lambda value: value or ""),
        ]
        print_table(found["channels"], fields)
    for problem in found["problems"]:
        click.echo(f"left out: {problem['field']}: {problem['text']}", err=True)


@alerts.command()
@click.argument("channel")
@connected
def test(*, channel: str, settings: Settings) -> None:
    """Send a test message, with made-up figures, to a channel of the server's configuration. Fails if it doesn't arrive.

    \b
    tallystick alerts test team
    """
    with running(settings) as server:
        answer = server.test_alerts(channel, who=me())
    if not answer["sent"]:
        raise Failure(f"{channel}: not sent: {answer['reason']}")
    click.echo(f"{channel}: sent")


@alerts.command()
@click.argument("subject")
@click.option("--value", help="Only this customer, agent, …, where the budget or rule is for each; all without it.")
@click.option("--for", "length", type=Length(), required=True, help="How long from now: 30m, 2h, 3d, 1w.")
@click.option("--why", required=True, help="Stands beside what isn't sent.")
@connected
def silence(*, subject: str, value: str | None, length: timedelta, why: str, settings: Settings) -> None:
    """Send nothing of a budget or rule for a while. What is said meanwhile counts as said and isn't sent later.

    \b
    tallystick alerts silence acme --for 2h --why "load test"
    tallystick alerts silence each-agent --value crawler --for 1d --why "known, ticket 7"
    """
    with running(settings) as server:
        made = server.silence(subject, length, why, value=value, who=me())
    click.echo(
        f"silence {made['id']}: {subject} until {_second(made['until'])} UTC; `tallystick alerts unsilence {made['id']}` ends it before"
    )


@alerts.command()
@click.option("--all", "over", is_flag=True, help="Those that are over, too.")
@json_option
@connected
def silences(*, over: bool, as_json: bool, settings: Settings) -> None:
    """List silences that hold, with who asked for them and why.

    \b
    tallystick alerts silences
    tallystick alerts silences --all --json
    """
    with running(settings) as server:
        found = server.silences(over=over)
    if as_json:
        print_json(found)
    elif found:
        fields = [
            Field("id", "id", str, right=True),
            Field("subject", "of", text),
            Field("value", "value", lambda value: "all" if value is None else text(value)),
            Field("until", "until", _second),
            Field("who", "who", text),
            Field("why", "why", text),
            Field("ended_by", "ended by", lambda value: value or ""),
        ]
        print_table(found, fields)


@alerts.command()
@click.argument("silence_id", metavar="ID", type=click.IntRange(min=1))
@connected
def unsilence(*, silence_id: int, settings: Settings) -> None:
    """End a silence before its time, by its id (of `alerts silences`).

    \b
    tallystick alerts unsilence 3
    """
    with running(settings) as server:
        server.unsilence(silence_id, who=me())
    click.echo(f"silence {silence_id} is over")


@alerts.command()
@click.argument("subject")
@click.option("--value", default="", help="Which customer, agent, …, where the budget or rule is for each.")
@click.option("--for", "length", type=Length(), help="How long from now; for the rest of the period without it.")
@click.option("--why", required=True, help="What is being done.")
@connected
def ack(*, subject: str, value: str, length: timedelta | None, why: str, settings: Settings) -> None:
    """Say that you have in hand what a budget or rule said last. It is shown beside the message, and holds nothing back.

    \b
    tallystick alerts ack acme --why "raising the budget with finance"
    tallystick alerts ack each-agent --value crawler --for 1d --why "fix is out"
    """
    with running(settings) as server:
        made = server.acknowledge(subject, why, value=value, until=length, who=me())
    click.echo(f"{subject}: {made['who']} has it in hand")


@alerts.command()
@json_option
@connected
def evaluate(*, as_json: bool, settings: Settings) -> None:
    """Evaluate all budgets and rules now, and say what was found.

    \b
    tallystick alerts evaluate
    tallystick alerts evaluate --json
    """
    with running(settings) as server:
        done = server.evaluate_alerts()
    if as_json:
        print_json([done])
        return
    if not done["evaluated"]:
        raise Failure("another replica evaluates", "it does so by itself; `tallystick alerts status` says when it did last")
    click.echo(f"{done['judged']:,} judged in {done['duration_s'] * 1000:,.0f} ms, {len(done['said']):,} said")
    for one in done["said"]:
        click.echo(f"  {one['title']}")


def evaluations(status: dict[str, Any]) -> str:
    """One line of what GET /v1/alerts/status says of evaluations."""
    scheduler, last = status["scheduler"], status["scheduler"]["last_tick"]
    what = f"{status['budgets']:,} budgets, {status['rules']:,} rules"
    if status["ledger_error"]:
        return f"{what}; {status['ledger_error']}"
    when = f"last evaluated {_second(last['at'])} UTC in {last['duration_s'] * 1000:,.0f} ms" if last else "never evaluated"
    if not scheduler["on"]:
        return f"{what}; not judged here, but by `tallystick alerts run`, or TALLYSTICK_ALERTS_EVERY_S is 0; {when}"
    failing = (
        f"; failing since {_second(scheduler['failing_since'])}: {scheduler['last_error']}" if scheduler["failing_since"] else ""
    )
    return f"{what}, every {scheduler['every_s']:g} s; {when}{failing}"


def _went(delivery: dict[str, Any]) -> str:
    return f"{delivery['channel']} {delivery['state']}" + (f" ({delivery['error']})" if delivery["error"] else "")


def _second(at: str) -> str:
    return at[:19].replace("T", " ")
