"""Providers, models and line items as invoices name them, and as the price book and calls do. Pure; the table is items.toml."""

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from genai_prices.data import providers

from tallystick.attribution.prices_names import collapsed, provider_id, readings, undated

_ITEMS: Final[Mapping[str, list[dict[str, str]]]] = tomllib.loads(
    (Path(__file__).parent / "items.toml").read_text(encoding="utf-8")
)

_KNOWN: Final = {collapsed(provider.id): provider.id for provider in providers}

_BEDROCK: Final = re.compile(
    r"^(?:arn:aws[\w-]*:bedrock:\S*/)?(?:[a-z]{2,6}(?:-gov)?\.)?[a-z0-9]+\.(?P<model>[a-z][\w.\-]*?)(?:-v\d+(?::[\w:]+)?|-\d+:[\w:]+)?$"
)
"""`us.anthropic.claude-sonnet-4-5-20250929-v1:0`."""


class Item(NamedTuple):
    """What a line item is about; model '' if it is no use of a model."""

    model: str
    bucket: str


def item(provider: str, name: str) -> Item:
    """A line item of a provider's invoice, by items.toml."""
    for row in _ITEMS.get(provider, ()):
        if found := re.fullmatch(row["name"], name.strip(), re.IGNORECASE):
            return Item(found.expand(row["model"]), row["bucket"])
    return Item("", "")


def known_provider(seen: str) -> str:
    """The provider's id in the price book, '' if the name says nothing."""
    return provider_id(seen, _KNOWN)


@lru_cache(maxsize=4096)
def known_model(provider: str, seen: str) -> str:
    """One name for all names of a model of `provider` (its id): without prefixes, date, and what only Bedrock adds.

    Snapshots of a model are one here: invoices and calls often name one by its date and the other not.
    """
    name = seen.strip().lower()
    billed = next((renamed for row in _ITEMS["billed"] if (renamed := _renamed(row, name))), None)
    if billed is not None:
        return billed
    for way in readings(provider, name, _KNOWN):
        name = way.model
    if provider == "aws" and (bedrock := _BEDROCK.match(name)):
        name = bedrock["model"]
    name = name.replace(" ", "-")
    return undated(name) or name


def _renamed(row: Mapping[str, Any], name: str) -> str | None:
    found = re.fullmatch(row["name"], name, re.IGNORECASE)
    if found is None:
        return None
    return re.sub(r"-+", "-", found.expand(row["model"])).strip("-")
