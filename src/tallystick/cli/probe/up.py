"""`tallystick probe up`: an engine, while the command runs."""

import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from tallystick.cli.failure import Failure

_EVERY_S: Final = 0.5


@click.command()
@click.argument("engine", type=click.Choice(["llamacpp", "vllm", "transformers"]))
@click.option(
    "--model", required=True, help="A file or folder, a name on Hugging Face's hub, or `generated` for random weights made here."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default, takes a free one.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of the engine, as its own command line names it; `python`: the interpreter that has its package.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=300, help="That it may take to answer; default 300."
)
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="File to which what the engine prints is added.")
def up(*, engine: str, model: str, port: int, options: tuple[str, ...], seconds: float, log: Path | None) -> None:
    """Start an engine whose package is installed, on 127.0.0.1; Ctrl-C or SIGTERM stops it, and all that it started.

    Prints `ready http://127.0.0.1:PORT` once it answers. `generated` is F32; for llama.cpp `generated:Q8_0` and `generated:Q4_0` are of the same
    weights. What it writes is noise: for trying out, not for comparing models.

    \b
    tallystick probe up llamacpp --model generated:Q8_0 --port 8102
    tallystick probe up llamacpp --model llama-3.2-1b-q4_k_m.gguf --option ctx-size=16384 --option parallel=8
    tallystick probe up vllm --model Qwen/Qwen3-0.6B --option max-model-len=8192 --option python=/opt/vllm/bin/python
    """
    from pydantic import ValidationError

    from tallystick.probes.config import EngineEntry, Start
    from tallystick.probes.engines.starting import StartFailed, started

    try:
        entry = EngineEntry(name=engine, engine=engine, start=Start(model=model, options=dict(map(_option, options))))  # type: ignore[arg-type]
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            TemporaryDirectory(prefix="tallystick-") as scratch,
            started(entry, log or Path(scratch) / "log", seconds, port=port) as running,
        ):
            click.echo(f"ready {running.url}")
            click.echo(
                f'measure it with `tallystick probe run FILE`, where the file has\n  engines: [{{name: {engine}, engine: {engine}, url: "{running.url}"}}]'
            )
            while not (died := running.died()):
                time.sleep(_EVERY_S)
            raise Failure(died)
    except StartFailed as error:
        raise Failure(error.message, error.hint) from None
    except KeyboardInterrupt:
        return


def _option(written: str) -> tuple[str, str | bool]:
    name, sign, value = written.partition("=")
    if not name:
        raise click.BadParameter(f"{written!r} has no name", param_hint="--option")
    return name.strip(), value if sign else True
