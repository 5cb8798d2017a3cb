"""Options that several commands share, made from the table of settings."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from tallystick import settings as table
from tallystick.settings import Settings

Form = Literal["table", "json", "csv"]
_F = TypeVar("_F", bound=Callable[..., Any])

_TYPES: dict[type, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.IntRange(min=0),
    Path: click.Path(path_type=Path),
}


def setting_option(name: str) -> Callable[[_F], _F]:
    """A flag for a row of the table of settings; the command gets None where it isn't given."""
    row = table.setting(name)
    default = "" if row.default is None else f", default {row.default}"
    return click.option(f"--{name.replace('_', '-')}", name, type=_TYPES[row.kind], help=f"{row.doc}  [{row.env}{default}]")


def connected(command: _F) -> _F:
    """Give a command --url and --data, and what they come to as its argument `settings`."""

    @wraps(command)
    def run(*, url: str | None, data: Path | None, **rest: Any) -> Any:
        if url is not None and not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r} starts with neither http:// nor https://", param_hint="--url")
        return command(settings=Settings.load(url=url, data=data), **rest)

    return cast(_F, setting_option("url")(setting_option("data")(run)))


def formatted(command: _F) -> _F:
    """Give a command --json and --csv, and the choice as its argument `form`."""

    @wraps(command)
    def run(*, as_json: bool, as_csv: bool, **rest: Any) -> Any:
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other")
        return command(form="json" if as_json else "csv" if as_csv else "table", **rest)

    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON array of objects; amounts of money are strings."),
        click.option("--csv", "as_csv", is_flag=True, help="CSV with a header."),
    ):
        run = option(run)
    return cast(_F, run)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON array of objects.")
