"""`tallystick deadletters`: messages that couldn't be entered, why, and back to where they came from."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import json_option, setting_option
from tallystick.cli.output import Field, count, print_json, print_table, text
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.ingest.dead_letters import DeadLetter

_REASONS: Final = ("malformed", "too-large", "unreadable", "unknown-tenant", "partly-rejected")
"""As ingest.messages has them, which takes long to import."""

_FIELDS: Final = (
    Field("letter", "letter", text),
    Field("from", "from", text),
    Field("at", "at", text),
    Field("reason", "reason", text),
    Field("tenant", "tenant", text),
    Field("spans", "spans", count, right=True),
    Field("detail", "detail", text),
)


def _on_topic(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a connection, and its argument `desk`."""

    @wraps(command)
    def run(*, kafka: str | None, kafka_dead_letters: str | None, **rest: Any) -> Any:
        from kafka.errors import KafkaError

        from tallystick.server.dead_letter_desk import DeadLetterDesk, NoSuchTopic

        settings = Settings.load(kafka=kafka, kafka_dead_letters=kafka_dead_letters)
        try:
            return command(desk=DeadLetterDesk(settings), **rest)
        except NoSuchTopic as error:
            raise Failure(str(error), "name another by TALLYSTICK_KAFKA_DEAD_LETTERS; `tallystick migrate` makes it") from None
        except KafkaError as error:
            raise Failure(
                f"Kafka doesn't answer: {type(error).__name__}", "see TALLYSTICK_KAFKA… in docs/settings.md; nothing was changed"
            ) from None

    return setting_option("kafka")(setting_option("kafka_dead_letters")(run))


def _chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose letters."""
    for option in (
        click.option("--since", type=click.DateTime(), help="Written since then, UTC."),
        click.option("--topic", help="From this topic only."),
        click.option("--reason", type=click.Choice(_REASONS), help="For this reason only."),
    ):
        command = option(command)
    return command


@click.group()
def deadletters() -> None:
    """Messages of Kafka that couldn't be entered: they wait in a topic of their own, with why.

    What a message says is never shown: it may hold prompts.

    \b
    tallystick deadletters list --reason malformed
    tallystick deadletters show tallystick.received/3/1204
    tallystick deadletters replay --reason unreadable --dry-run
    """


@deadletters.command("list")
@_chosen
@json_option
@_on_topic
def list_letters(*, desk: Any, reason: str | None, topic: str | None, since: datetime | None, as_json: bool) -> None:
    """Which messages couldn't be entered, why, and when. A message may stand there twice.

    \b
    tallystick deadletters list
    tallystick deadletters list --since 2026-11-01 --topic otel-spans --json
    """
    rows = [_row(letter) for letter in desk.letters(reason, topic, since and since.replace(tzinfo=UTC))]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, _FIELDS)
    else:
        click.echo("no dead letters", err=True)


@deadletters.command()
@click.argument("coordinates")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the message's bytes to this file.")
@json_option
@_on_topic
def show(*, desk: Any, coordinates: str, save: Path | None, as_json: bool) -> None:
    """One message: where it came from, why it is here, and what it holds, without its contents.

    COORDINATES are TOPIC/PARTITION/OFFSET, of the dead letter or of the message that it was.

    \b
    tallystick deadletters show tallystick.dead-letters/0/17
    tallystick deadletters show tallystick.received/3/1204 --save message.binpb
    """
    letter = _found(desk, coordinates)
    shown = _row(letter) | desk.summary(letter)
    if save is not None:
        if letter.record.value is None:
            raise Failure(
                f"the value of {letter.left:,} bytes isn't here",
                f"it was too large; it is {letter.record.coordinates}, while that is kept",
            )
        save.write_bytes(letter.record.value)
    if as_json:
        print_json([shown])
        return
    for name, value in shown.items():
        click.echo(f"{name:>9}  {text(value)}")


@deadletters.command()
@click.argument("coordinates", required=False)
@_chosen
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@json_option
@_on_topic
def replay(
    *,
    desk: Any,
    coordinates: str | None,
    reason: str | None,
    topic: str | None,
    since: datetime | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send messages back to the topic that they came from, as they were: one, or all of a reason.

    What was entered already, by an earlier replay say, is dropped by its identity: it counts once. Letters stay in their topic; what is as bad
    as before comes back as a new one.

    \b
    tallystick deadletters replay --reason unreadable --dry-run
    tallystick deadletters replay --reason unreadable
    tallystick deadletters replay tallystick.received/3/1204
    """
    if (coordinates is None) == (reason is None):
        raise click.UsageError("name one message, or a --reason")
    chosen = [_found(desk, coordinates)] if coordinates else desk.letters(reason, topic, since and since.replace(tzinfo=UTC))
    done = desk.replay(chosen, dry_run=dry_run)
    if as_json:
        print_json([done])
        return
    click.echo(
        f"{done['messages']:,} messages {'would be sent' if dry_run else 'sent'} to {', '.join(done['topics']) or 'no topic'}"
    )
    for key, why in (
        ("repeated", "stood there twice, and count once"),
        ("without_value", "were too large to be here: they aren't sent"),
    ):
        if done[key]:
            click.echo(f"{done[key]:,} {why}", err=True)
    if not dry_run and done["messages"]:
        click.echo(
            "what was entered already is dropped by its identity; `tallystick deadletters list` shows what comes back", err=True
        )


def _found(desk: Any, coordinates: str) -> "DeadLetter":
    topic, *numbers = coordinates.split("/")
    if not topic or len(numbers) != 2 or not all(part.isascii() and part.isdigit() for part in numbers):
        raise click.BadParameter(f"{coordinates!r} isn't TOPIC/PARTITION/OFFSET", param_hint="COORDINATES")
    letter: DeadLetter | None = desk.one(coordinates)
    if letter is None:
        raise Failure(f"no dead letter is, or was, {coordinates}", "`tallystick deadletters list` shows those that are there")
    return letter


def _row(letter: "DeadLetter") -> dict[str, Any]:
    at = datetime.fromtimestamp(letter.at_ms / 1000, UTC)
    return {
        "letter": letter.at.coordinates,
        "from": letter.record.coordinates,
        "at": f"{at:%Y-%m-%d %H:%M:%S}",
        "reason": letter.dead.reason,
        "tenant": letter.tenant,
        "spans": letter.spans,
        "bytes": letter.left or len(letter.record.value or b""),
        "detail": letter.dead.detail,
    }
