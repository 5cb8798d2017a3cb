"""`tallystick tokens`: count the tokens of a file, and fetch what they are counted with."""

import json
import os
from pathlib import Path
from typing import IO

import click

from tallystick.cli.failure import Failure
from tallystick.cli.options import json_option
from tallystick.cli.output import print_json
from tallystick.collectors.tokens import Count, count_request, count_text

ENCODINGS = ("o200k_base", "cl100k_base")
"""Of OpenAI's models since GPT-3.5."""


@click.group()
def tokens() -> None:
    """Tokens, counted without asking a provider. docs/tokens.md says how well.

    \b
    tallystick tokens fetch --to /opt/encodings
    tallystick tokens count --model gpt-5 prompt.txt
    """


@tokens.command()
@click.argument("file", type=click.File(encoding="utf-8", errors="surrogateescape"), default="-")
@click.option("--model", required=True, help="Any name of a model: dated, fine-tuned, after its provider.")
@click.option("--request", "is_request", is_flag=True, help="FILE is the JSON body of a request, with messages and tools.")
@json_option
def count(*, file: IO[str], model: str, is_request: bool, as_json: bool) -> None:
    """Count the tokens of FILE, or of standard input.

    \b
    git diff | tallystick tokens count --model claude-sonnet-4-5
    tallystick tokens count --model gpt-4o --request request.json --json
    """
    text = file.read()
    found = _of_request(model, text) if is_request else count_text(model, text)
    if as_json:
        row = {"model": model, "tokens": found.tokens, "source": found.source, "encoding": found.encoding, "note": found.note}
        print_json([row])
        return
    click.echo(f"{found.tokens} tokens" if found.source == "tokenizer" else f"about {found.tokens} tokens")
    if found.note:
        click.echo(f"  {found.note}", err=True)


@tokens.command()
@click.argument("encodings", nargs=-1, metavar="[ENCODING]...")
@click.option(
    "--to", type=click.Path(file_okay=False, path_type=Path), help="Directory, which TIKTOKEN_CACHE_DIR is to name then."
)
def fetch(*, encodings: tuple[str, ...], to: Path | None) -> None:
    """Download tiktoken's encodings once (o200k_base and cl100k_base, 5 MB), so that counting never does.

    Without --to they go where tiktoken keeps its own, which may be a directory that is emptied when the machine starts.

    \b
    tallystick tokens fetch --to /opt/encodings
    export TIKTOKEN_CACHE_DIR=/opt/encodings
    """
    try:
        import tiktoken
    except ImportError:
        raise Failure("tiktoken isn't installed", "pip install 'tallystick[tokens]'") from None
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        os.environ["TIKTOKEN_CACHE_DIR"] = str(to)
    for name in encodings or ENCODINGS:
        if name not in tiktoken.list_encoding_names():
            raise Failure(f"tiktoken knows no encoding {name!r}", f"it knows {', '.join(tiktoken.list_encoding_names())}")
        try:
            tiktoken.get_encoding(name)
        except Exception as error:  # of the network, or of the disk
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise Failure(
                f"{name} can't be fetched: {why}", "see whether openaipublic.blob.core.windows.net can be reached"
            ) from None
        click.echo(name)
    if to is not None:
        click.echo(f"export TIKTOKEN_CACHE_DIR={to}")


def _of_request(model: str, text: str) -> Count:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Failure(f"the request isn't JSON: {error}", "leave out --request to count the text as it is") from None
    if not isinstance(body, dict):
        raise Failure("the request isn't a JSON object", 'write {"messages": […], "tools": […]}')
    return count_request(model, body)
