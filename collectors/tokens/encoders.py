"""tiktoken's encodings from files that are already on this machine. Nothing here ever reaches the network.

tiktoken itself downloads an encoding when it is first used, in the middle of somebody's call.
"""

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, Final

CARRIERS: Final = (("litellm", "litellm_core_utils/tokenizers"), ("llama_index", "core/_static/tiktoken_cache"))
"""Packages that have encodings among their files, under tiktoken's names for them."""

LONGEST: Final = 65_536
"""Characters that tiktoken is given at once: it panics, with a stack trace on stderr, on some hundred thousand spaces."""

Encoder = Callable[[str], int]

_loaded: dict[str, Encoder | str] = {}
_loading = threading.Lock()


def _unlock() -> None:
    global _loading  # noqa: PLW0603 - in a forked child, where the thread that held it doesn't exist
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def encoder(name: str) -> Encoder | str:
    """What counts the tokens of a text in encoding `name`, or why there is none. Loads it once in a process, which takes a
    quarter of a second; a failure is remembered, too."""
    found = _loaded.get(name)
    if found is None:
        with _loading:
            found = _loaded.get(name) or _load(name)
            _loaded[name] = found
    return found


def directories() -> Iterator[Path]:
    """Where encodings may lie: tiktoken's cache, then packages that carry them. Imports none of these."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if given := os.environ.get(variable):
            yield Path(given)
    yield Path(tempfile.gettempdir(), "data-gym-cache")
    for package, folder in CARRIERS:
        try:
            spec = find_spec(package)
        except (ImportError, ValueError):  # a stand-in in sys.modules
            continue
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place, folder)


def _load(name: str) -> Encoder | str:
    try:
        import tiktoken
        from tiktoken.registry import ENCODINGS
    except ImportError:
        return "tiktoken isn't installed: pip install 'tallystick[tokens]'"
    encoding = ENCODINGS.get(name)  # the application's own, in use
    if encoding is None:
        try:
            encoding = tiktoken.Encoding(**_parts(name))
        except LookupError:
            return f"{name} isn't on this machine: tallystick tokens fetch"
        except Exception as error:  # a version of tiktoken with other insides
            return f"{name} can't be loaded: {type(error).__name__}"
    count = encoding.encode_ordinary
    return lambda text: sum(len(count(piece)) for piece in _pieces(text)) if len(text) > LONGEST else len(count(text))


def _parts(name: str) -> dict[str, Any]:
    """The arguments of a `tiktoken.Encoding`. Raises LookupError where its file isn't here.

    The recipes are tiktoken's own, with a reader in them that only looks at files.
    """
    from tiktoken_ext import openai_public

    names: dict[str, Any] = {**vars(openai_public), "load_tiktoken_bpe": _ranks}
    for other, recipe in openai_public.ENCODING_CONSTRUCTORS.items():
        names[other] = FunctionType(recipe.__code__, names)
    if name not in openai_public.ENCODING_CONSTRUCTORS or name == "gpt2":  # of another format
        raise LookupError(name)
    parts: dict[str, Any] = names[name]()
    return parts


def _ranks(url: str, expected_hash: str) -> dict[bytes, int]:
    """Token → rank from the local copy of `url`. Raises LookupError where there is none that is whole."""
    from base64 import b64decode

    key = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    for directory in directories():
        try:
            data = (directory / key).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == expected_hash:
            return {b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines()) if token}
    raise LookupError(url)


def _pieces(text: str) -> Iterator[str]:
    """`text` cut before a space between two words, where no token reaches across; anywhere if there is none for long."""
    start = 0
    while len(text) - start > LONGEST:
        end = start + LONGEST
        for at in range(end, end - 1024, -1):
            if text[at] == " " and re.match(r"\w \w", text[at - 1 : at + 2]):
                end = at
                break
        yield text[start:end]
        start = end
    yield text[start:]
