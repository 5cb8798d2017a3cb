"""Options of llama.cpp's server, by the names of its command line, set on xllamacpp's parameters. Which: llamacpp_options.yaml."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

_WORDS: Final = {"on": "ENABLED", "off": "DISABLED", "true": "ENABLED", "false": "DISABLED"}
"""Of enumerations, where the command line calls a value otherwise than the library."""
_TRUE: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


class BadOption(ValueError):
    """An option that isn't known, or a value that it can't have."""


@cache
def known_options() -> Mapping[str, str]:
    """Name on the command line → attribute of CommonParams; `!` before it: the option says the opposite of the attribute."""
    text = files("tallystick.probes.engines").joinpath("llamacpp_options.yaml").read_text(encoding="utf-8")
    known: dict[str, str] = yaml.safe_load(text)
    return known


def attribute(name: str) -> tuple[str, bool]:
    """Of an option as llama-server names it (`--no-warmup`, `ctx_size`), and whether its value is to be turned round. Raises BadOption."""
    asked = name.removeprefix("--").replace("_", "-")
    known = known_options()
    for candidate, negated in ((asked, False), (asked.removeprefix("no-"), True)):
        if candidate in known:
            place = known[candidate]
            return place.removeprefix("!"), negated != place.startswith("!")
    raise BadOption(f"llama.cpp's server has no option {name!r} that can be set here; known: {', '.join(sorted(known))}")


def set_option(params: Any, name: str, value: str) -> None:
    """Give an attribute of `params` the value in words. Raises BadOption."""
    place, negated = attribute(name)
    *parts, last = place.split(".")
    for part in parts:
        params = getattr(params, part)
    old = getattr(params, last)
    try:
        setattr(params, last, (not _parsed(True, value)) if negated else _parsed(old, value))
    except (ValueError, OverflowError, TypeError) as error:
        raise BadOption(f"option {name!r} can't be {value!r}: {error}") from None


def _parsed(old: Any, value: str) -> Any:
    """`value` as what the attribute holds now."""
    kinds: tuple[tuple[type, Callable[[str], Any]], ...] = (
        (bool, _boolean),
        (IntEnum, lambda text: _member(type(old), text)),
        (int, int),
        (float, float),
        (set, lambda text: set(text.split(","))),
        (list, lambda text: [_member(type(old[0]), part) for part in text.split(",")]),
    )
    return next((parse(value) for kind, parse in kinds if isinstance(old, kind)), value)


def _boolean(text: str) -> bool:
    if (value := _TRUE.get(text.lower())) is None:
        raise ValueError("true or false is meant")
    return value


def _member(kind: type[IntEnum], text: str) -> IntEnum:
    """`q8_0` → GGML_TYPE_Q8_0, `on` → LLAMA_FLASH_ATTN_TYPE_ENABLED: what all members' names begin with isn't written."""
    members = kind.__members__
    first = next(iter(members))
    shared = first[: max(at for at in range(len(first) + 1) if all(name.startswith(first[:at]) for name in members))]
    prefix = shared[: shared.rfind("_") + 1]
    word = text.upper().replace("-", "_")
    for candidate in (word, _WORDS.get(text.lower(), "")):
        if f"{prefix}{candidate}" in members:
            return members[f"{prefix}{candidate}"]
    raise ValueError(f"known: {', '.join(name.removeprefix(prefix).lower() for name in members)}")
