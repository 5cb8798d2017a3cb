"""`tallystick receiver`: OTLP to Kafka."""

from typing import Any

import click

from tallystick.cli.options import setting_option
from tallystick.settings import Settings


@click.command()
@setting_option("kafka")
@setting_option("data")
@setting_option("keys")
@setting_option("host")
@setting_option("port")
@setting_option("grpc_port")
@setting_option("spool_bytes")
def receiver(**flags: Any) -> None:
    """Receive spans and hand them to Kafka, from where `tallystick ingest` enters them.

    A payload is acknowledged once the brokers in sync have it. While none takes it for 3 s, payloads are kept in the data directory, and sent
    in their order when one does. Several receivers need a data directory each; API keys can be shared (--keys).

    Prints `ready http://HOST:PORT` once spans are accepted. SIGTERM and Ctrl-C finish what was received and stop.

    \b
    tallystick receiver --kafka kafka-1:9092,kafka-2:9092 --host 0.0.0.0 --keys /etc/tallystick/keys.json
    TALLYSTICK_KAFKA=127.0.0.1:9092 tallystick receiver --data receiver-1 --port 4318
    """
    from tallystick.server.run_receiver import run_receiver

    run_receiver(Settings.load(**flags))
