"""What a role's process says of its configuration where it can't start with it."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tallystick.cli.failure import Failure
from tallystick.settings import Settings


@contextmanager
def in_words_of_its_configuration(settings: Settings) -> Iterator[None]:
    """While a role runs. Raises BadParameter where the configuration file isn't there, and Failure in place of what is wrong with it."""
    if settings.config is not None and not settings.config.is_file():
        raise click.BadParameter(f"{settings.config} is no file", param_hint="--config")
    try:
        yield
    except Exception as error:
        hint = _hint(error)
        if hint is None:
            raise
        raise Failure(str(error), hint) from None


def _hint(error: Exception) -> str | None:
    # Imported here: a role that has no alerts shouldn't load what they need.
    from tallystick.alerts.config_yaml import ConfigError
    from tallystick.alerts.database import LedgerError
    from tallystick.attribution.prices_file import PriceFileError

    match error:
        case PriceFileError():
            return "`tallystick prices check FILE` says the same without starting anything"
        case ConfigError():
            return "`tallystick budgets validate FILE` says the same without starting anything"
        case LedgerError():
            return "see TALLYSTICK_ALERTS_URL in docs/settings.md"
        case _:
            return None
