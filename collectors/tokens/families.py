"""Which vocabulary a model's text is counted in, from how it is named: data, in encodings.csv."""

import csv
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

DEFAULT: Final = "o200k_base"
"""The vocabulary that a model is counted in of which nothing is known. Those of today differ by less than the text does."""

_VENDOR: Final = re.compile(
    r"^(?:[a-z]{2,6}(?:-gov)?\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|mistral|openai|qwen)\."
)
"""What Bedrock puts before a name: region and vendor."""


class Family(NamedTuple):
    """How the text of a model is counted."""

    encoding: str
    """Of tiktoken."""
    factor: float | None
    """What the count in `encoding` is multiplied by, where the model's own tokenizer can't be had; None where `encoding` is its own."""
    note: str
    """Why it is an estimate, '' where it isn't."""


@lru_cache(maxsize=1024)
def family(model: str) -> Family:
    """The family of a model by any of its names: dated, fine-tuned (`ft:gpt-4o:org::id`), after its provider
    (`openai/gpt-4o`), of Bedrock, or within the name of an Azure deployment (`prod-gpt-4o-eu`)."""
    for name in readings(model):
        if found := _by_prefix(name):
            return found
    shown = model[:80]
    for name in readings(model):
        if (named := re.search(r"(?<![a-z0-9])(?:gpt-?\d|o\d-|claude-|gemini-|llama-?\d|mistral-|qwen)", name)) and (
            found := _by_prefix(name[named.start() :])
        ):
            why = f"{shown!r} is taken for a {name[named.start() :][:40]}"
            return found._replace(note=f"{found.note}; {why}" if found.note else why)
    return Family(DEFAULT, 1.1, f"no tokenizer is known for {shown!r}: counted as {DEFAULT}, × 1.1")


def readings(model: str) -> Iterator[str]:
    """The name without what stands before it (provider, region, vendor), then with it."""
    # Azure's own spelling lacks a hyphen: gpt4o, gpt35.
    name = re.sub(r"(?<![a-z0-9])gpt(?=\d)", "gpt-", model.strip().lower().removeprefix("ft:"))
    last = name.rpartition("/")[2]
    yield from dict.fromkeys((last, _VENDOR.sub("", last), name))


def _by_prefix(name: str) -> Family | None:
    for prefix, found in _table():
        # 'gpt-4' is no beginning of 'gpt-4.2' or 'gpt-40', of which nothing is known.
        if name.startswith(prefix) and not re.match(r"[a-z0-9.]", name[len(prefix) :] if prefix[-1].isdigit() else ""):
            return found
    return _by_tiktoken(name)


def _by_tiktoken(name: str) -> Family | None:
    """What the installed tiktoken knows: models of its day that are newer, or older, than the table."""
    try:
        from tiktoken.model import encoding_name_for_model

        return Family(encoding_name_for_model(name), None, "")
    except (ImportError, KeyError):
        return None


@cache
def _table() -> tuple[tuple[str, Family], ...]:
    """Prefixes of names, the longest first."""
    text = files("tallystick.collectors.tokens").joinpath("encodings.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        factor = float(row["factor"]) if row["factor"] else None
        note = (
            f"the tokenizer of {row['prefix']}… isn't at hand: counted as {row['encoding']}, × {row['factor']}" if factor else ""
        )
        rows.append((row["prefix"], Family(row["encoding"], factor, note)))
    return tuple(sorted(rows, key=lambda row: -len(row[0])))
