"""`tallystick keys`: who may send, and as whom."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import json_option, setting_option
from tallystick.cli.output import Field, print_json, print_table, text
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.ingest.keys import KeyStore


def _second(value: datetime | None) -> str:
    return "" if value is None else str(value)[:19]


_ROLES = ("member", "writer", "reader", "operator")
"""As ingest.keys has them, which takes long to import."""

_FIELDS = (
    Field("id", "id", text),
    Field("tenant", "tenant", text),
    Field("role", "role", text),
    Field("created_at", "created", _second),
    Field("revoked_at", "revoked", _second),
)


@click.group()
def keys() -> None:
    """API keys: a key stands for a tenant, and what is sent with it is that tenant's.

    Keys are kept in the data directory, hashed, and can be changed while the server runs.

    \b
    tallystick keys create --tenant acme
    tallystick keys create --tenant acme --role writer
    tallystick keys list
    tallystick keys revoke 3f9a1c
    """


@keys.command()
@click.option("--tenant", required=True, help="Whose calls are sent with the key.")
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    default=_ROLES[0],
    show_default=True,
    help="A writer sends, a reader asks, a member does both; an operator does so for every tenant, and changes budgets.",
)
@json_option
@setting_option("data")
def create(*, tenant: str, role: str, as_json: bool, data: Path | None) -> None:
    """Make a key and print it: this is the only time that it is shown.

    \b
    tallystick keys create --tenant acme
    tallystick keys create --tenant acme --role reader --json
    """
    from tallystick.ingest.keys import BadTenant, Role

    try:
        key = _store(data).create(tenant, Role(role))
    except BadTenant as error:
        raise click.BadParameter(str(error), param_hint="--tenant") from None
    if as_json:
        print_json([{"tenant": tenant, "role": role, "key": key}])
        return
    click.echo(key)
    use = "A service sends with it by TALLYSTICK_KEY" if Role(role).sends else "Commands ask with it by TALLYSTICK_KEY"
    click.echo(f"the key of {tenant}, a {role}'s; it isn't shown again. {use}", err=True)


@keys.command("list")
@json_option
@setting_option("data")
def list_(*, as_json: bool, data: Path | None) -> None:
    """List keys, without what is secret about them.

    \b
    tallystick keys list --json
    """
    rows = [{field.key: getattr(info, field.key) for field in _FIELDS} for info in _store(data).all()]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(rows, _FIELDS)


@keys.command()
@click.argument("key_id", metavar="ID")
@setting_option("data")
def revoke(*, key_id: str, data: Path | None) -> None:
    """Revoke a key by its id (of `keys list`): what is sent with it is refused from then on.

    \b
    tallystick keys revoke 3f9a1c
    """
    if not _store(data).revoke(key_id):
        raise Failure(f"no key in force has the id {key_id!r}", "`tallystick keys list` shows them")


def _store(data: Path | None) -> "KeyStore":
    from tallystick.ingest.keys import KeyStore

    settings = Settings.load(data=data)
    return KeyStore(settings.data, settings.keys)
