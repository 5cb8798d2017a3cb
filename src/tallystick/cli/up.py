"""`tallystick up`: the server."""

from typing import Any

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import setting_option
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
    if settings.config is not None and not settings.config.is_file():
        raise click.BadParameter(f"{settings.config} is no file", param_hint="--config")
    from tallystick.alerts.config_yaml import ConfigError
    from tallystick.alerts.database import LedgerError
    from tallystick.attribution.prices_file import PriceFileError
    from tallystick.server.run import run

    try:
        run(settings)
    except PriceFileError as error:
        raise Failure(str(error), "`tallystick prices check FILE` says the same without starting anything") from None
    except ConfigError as error:
        raise Failure(str(error), "`tallystick budgets validate FILE` says the same without starting anything") from None
    except LedgerError as error:
        raise Failure(str(error), "see TALLYSTICK_ALERTS_URL in docs/settings.md") from None
