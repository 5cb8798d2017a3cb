"""`tallystick up`: the server."""

from typing import Any

import click

from tallystick.cli.options import setting_option
from tallystick.cli.starting import in_words_of_its_configuration
from tallystick.settings import Settings


@click.command()
@setting_option("data")
@setting_option("host")
@setting_option("port")
@setting_option("grpc_port")
@setting_option("config")
def up(**flags: Any) -> None:
    """Receive spans, price them, keep the ledger and answer questions about it.

    Prints `ready http://HOST:PORT` once spans are accepted. SIGTERM and Ctrl-C finish what was received and stop.

    \b
    tallystick up
    tallystick up --data /var/lib/tallystick --port 4318 --config prices.yaml
    tallystick up --host 0.0.0.0           senders then need a key: tallystick keys create --tenant acme
    """
    settings = Settings.load(**flags)
    from tallystick.server.run import run

    with in_words_of_its_configuration(settings):
        run(settings)
