"""`tallystick ingest`: Kafka to the ledger."""

from typing import Any

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import setting_option
from tallystick.cli.starting import in_words_of_its_configuration
from tallystick.settings import Settings


@click.command()
@setting_option("kafka")
@setting_option("kafka_tenants")
@setting_option("kafka_group")
@setting_option("clickhouse")
@setting_option("config")
@setting_option("health_port")
def ingest(**flags: Any) -> None:
    """Enter into the ledger what receivers, collectors and OpenTelemetry Collectors have written to Kafka.

    Any number of these share the topics' partitions. An offset is committed once everything before it is on disk; what is read twice is entered
    once. A message that can't be entered goes to the dead letters (tallystick deadletters); too many of them stop the process, with exit code 1.
    While the ledger or Kafka is away nothing is skipped, and /readyz on the health port says so.

    Prints `ready kafka://BROKERS/GROUP` once it has joined the group. SIGTERM and Ctrl-C enter and commit what was read, and stop.

    \b
    tallystick ingest --kafka kafka-1:9092,kafka-2:9092 --clickhouse clickhouse://writer@clickhouse:8123/tallystick
    tallystick ingest --kafka-tenants otel-spans=acme,billing-spans=globex     topics of others, and whose spans they hold
    """
    settings = Settings.load(**flags)
    from tallystick.ingest.consumer import CeilingReached, Fenced
    from tallystick.server.run_ingest import run_ingest

    try:
        with in_words_of_its_configuration(settings):
            run_ingest(settings)
    except CeilingReached as error:
        raise Failure(
            f"stopped: {error}; offsets of what was dealt with are committed",
            "`tallystick deadletters list` says why; once that is mended start again, and `tallystick deadletters replay` them."
            " TALLYSTICK_DEAD_LETTERS_RUN=0 and …_PERCENT=0 lift the ceiling",
        ) from None
    except Fenced as error:
        raise Failure(f"stopped: {error}", "every consumer needs a TALLYSTICK_KAFKA_INSTANCE of its own, or none") from None
