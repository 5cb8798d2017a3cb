"""`tallystick api`: questions about a ledger on a ClickHouse server."""

from typing import Any

import click

from tallystick.cli.options import setting_option
from tallystick.cli.starting import in_words_of_its_configuration
from tallystick.settings import Settings


@click.command()
@setting_option("clickhouse")
@setting_option("host")
@setting_option("port")
@setting_option("config")
@setting_option("data")
def api(**flags: Any) -> None:
    """Answer questions about a ledger on a ClickHouse server: the API, the page, ClickHouse's interface, and corrections.

    Spans come in by `receiver` and `ingest`, budgets are judged by `alerts run`. Several of these may stand behind a load balancer: they share keys
    by TALLYSTICK_KEYS and budgets made by API by TALLYSTICK_ALERTS_URL. Prints `ready http://HOST:PORT`; SIGTERM and Ctrl-C finish what was asked.

    \b
    tallystick api --clickhouse clickhouse://tallystick_api@ch1:8123/tallystick
    tallystick api --clickhouse clickhouse://tallystick_api@ch1:8123,ch2:8123/tallystick --host 0.0.0.0
    """
    settings = Settings.load(**flags)
    if settings.clickhouse is None:
        raise click.UsageError(
            "no server holds the ledger: give --clickhouse, or run `tallystick up`, which keeps one in its directory"
        )
    from tallystick.server.run_api import run_api

    with in_words_of_its_configuration(settings):
        run_api(settings)
