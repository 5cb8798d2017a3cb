"""How a command fails: what happened and what to do, one or two lines on stderr."""

from pathlib import Path
from typing import IO, Any

import click

from tallystick.client import Refused, Unreachable
from tallystick.ingest.errors import StoreError
from tallystick.settings import BadSetting

_SERVER_PACKAGES = (
    "chdb",
    "clickhouse_connect",
    "fastapi",
    "genai_prices",
    "grpc",
    "httpx",
    "pydantic",
    "rich",
    "uvicorn",
    "yaml",
)


_PROBE_PACKAGES = ("aiohttp", "jinja2", "numpy", "pynvml", "xllamacpp")


class Failure(click.ClickException):
    """Ends the command with exit code 1: `message` says what happened, `hint` what to do ('' where there is nothing to say)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both lines to stderr."""
        click.secho(f"error: {self.message}", fg="red", err=True)
        if self.hint:
            click.echo(f"  {self.hint}", err=True)


def in_words(error: Exception) -> click.ClickException:
    """What a person is shown for an error that a command let through."""
    shown: click.ClickException
    match error:
        case Unreachable():
            shown = Failure(str(error), "start one with `tallystick up`, or name another with --url or TALLYSTICK_URL")
        case Refused(status=401 | 403):
            shown = Failure(
                f"the server refuses: {error}", error.hint or "set TALLYSTICK_KEY; `tallystick keys create` makes a key"
            )
        case Refused():
            shown = Failure(str(error), error.hint)
        case StoreError():
            shown = Failure(str(error), error.hint)
        case BadSetting():
            shown = click.UsageError(str(error))
        case ImportError(name=str(name)) if name.startswith(("kafka", "lz4")):
            shown = Failure(f"this command needs Kafka's packages ({name} is missing)", "pip install 'tallystick[server,kafka]'")
        case ImportError(name=str(name)) if name.startswith(_SERVER_PACKAGES):
            shown = Failure(
                f"this command needs packages that aren't installed ({name} is missing)",
                "pip install 'tallystick[server]', or 'tallystick[probes]' for `tallystick probe` and `tallystick estimate` alone",
            )
        case ImportError(name=str(name)) if name.startswith(_PROBE_PACKAGES):
            shown = Failure(f"this command needs the probes' packages ({name} is missing)", "pip install 'tallystick[probes]'")
        case OSError(strerror=str(reason), filename=str() | Path() as place):
            shown = Failure(f"{reason}: {place}")
        case OSError(strerror=str(reason)):
            shown = Failure(reason)
        case _:
            shown = Failure(f"{type(error).__name__}: {error}", "TALLYSTICK_STRICT=1 shows where it happened; please report it")
    return shown
