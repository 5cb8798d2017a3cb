"""`tallystick probe`: one file a command, imported when it is called."""

from importlib import import_module
from typing import Final

import click

COMMANDS: Final = ("run", "list", "compare", "show", "price", "breakeven", "push", "up")
"""In the order of the help; the module of `run` is run.py, its command `run`. Of names that Python has, `list`'s is `list_runs`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = "list_runs" if cmd_name == "list" else cmd_name
        command = getattr(import_module(f"tallystick.cli.probe.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands)
def probe() -> None:
    """Inference engines measured, compared, and turned into money. docs/probes.md explains every figure.

    \b
    tallystick probe run examples/llamacpp.yaml     measure what the file says, and report
    tallystick probe compare RUN RUN                one against the other, with intervals and a verdict
    tallystick probe breakeven --feature chat --engine RUN     what the feature's real calls would cost there
    """
