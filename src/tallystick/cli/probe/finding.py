"""Runs by the names that people give them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tallystick.cli.failure import Failure

if TYPE_CHECKING:
    from tallystick.probes.loading import LoadedRun


def found_runs(data: Path, names: Sequence[str]) -> "list[LoadedRun]":
    """Those of all names, each once, in their order; what couldn't be read of them is told on stderr. Raises Failure."""
    from tallystick.probes.loading import RunNotFound, RunUnreadable, find_runs

    found: dict[str, LoadedRun] = {}
    for name in names:
        try:
            found |= {run.info.id: run for run in find_runs(data, name)}
        except RunNotFound as error:
            raise Failure(str(error), error.hint) from None
        except RunUnreadable as error:
            raise Failure(str(error)) from None
    for run in found.values():
        for problem in run.problems:
            click.echo(f"{run.info.id}: {problem}", err=True)
    return list(found.values())
