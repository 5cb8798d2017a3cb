"""The command `tallystick`: one file a command, imported when it is called."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

import click

from tallystick.cli.failure import in_words

COMMANDS = (
    "up",
    "receiver",
    "ingest",
    "deadletters",
    "api",
    "demo",
    "replay",
    "costs",
    "ask",
    "sql",
    "prices",
    "tokens",
    "whatif",
    "allocate",
    "statement",
    "reprice",
    "void",
    "corrections",
    "reconcile",
    "focus",
    "probe",
    "estimate",
    "budgets",
    "alerts",
    "keys",
    "migrate",
    "audit",
    "doctor",
)
"""In the order of the help: what a newcomer needs first."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"tallystick.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("tallystick"), prog_name="tallystick", message="%(prog)s %(version)s")
def cli() -> None:
    """What language-model calls cost, and whom they were for.

    \b
    tallystick demo                          real traffic through a server of its own, and what it cost
    tallystick up                            receive spans on port 4318 and answer questions about them
    tallystick costs --by customer,feature   who spent what

    Every command explains itself: tallystick COMMAND --help. Settings come from TALLYSTICK_* variables too.
    """


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage. TALLYSTICK_STRICT=1 raises what isn't foreseen."""
    try:
        # Without its standalone mode click hands back the exit code that a command asked for.
        code = cli(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing failed. Python must not find that out again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("TALLYSTICK_STRICT") == "1":
            raise
        failure = in_words(error)
        failure.show()
        sys.exit(failure.exit_code)
