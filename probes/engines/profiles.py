"""What each engine can do and how it says it: profiles.yaml, which explains every field."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """Where an engine tells something: GET `path`, and in its JSON `at` (`data.0.id`; '' is all of it)."""

    path: str
    at: str


class Settings(Place):
    """An object of plain values. leave: those that say nothing of what is measured."""

    leave: tuple[str, ...] = ()


class Exchange(_Part):
    """POST `send` to `path`, and take what is `at`."""

    path: str
    send: dict[str, Any]
    at: str


class Profile(_Part):
    """Of one engine."""

    name: str
    health: str
    version: Place | None = None
    context: Place | None = None
    settings: tuple[Settings, ...] = ()
    metrics: str | None = None
    metrics_need: str = ""
    labels: tuple[str, ...] = ()
    tokenise: Exchange | None = None
    detokenise: Exchange | None = None
    lists_models: bool = True
    token_ids: bool
    fields: tuple[str, ...]
    keeps_connections: bool = True
    sources: tuple[str, ...]
    seen: bool = True


@cache
def profiles() -> Mapping[str, Profile]:
    """Kind → profile."""
    text = files("tallystick.probes.engines").joinpath("profiles.yaml").read_text(encoding="utf-8")
    return {kind: Profile.model_validate(content) for kind, content in yaml.safe_load(text).items()}


def profile(kind: str) -> Profile:
    """Raises KeyError for a kind that config.KINDS doesn't have."""
    return profiles()[kind]


def found(content: Any, at: str) -> Any:
    """What a document holds `at` a place; None where there is no such place. `*` stands for each element of a list."""
    first, _, rest = at.partition(".")
    if not first:
        return content
    if first == "*":
        return [found(one, rest) for one in content] if isinstance(content, list) else None
    if isinstance(content, list):
        inner = content[int(first)] if first.isdecimal() and int(first) < len(content) else None
    else:
        inner = content.get(first) if isinstance(content, dict) else None
    return found(inner, rest) if inner is not None else None
