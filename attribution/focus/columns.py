"""Which columns each version of FOCUS has and what it demands of them, read from columns.toml."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, Literal, cast

VERSIONS: Final = ("1.2", "1.4")
"""That are written."""

Type = Literal["Decimal", "String", "JSON", "Date/Time", "Integer", "Boolean"]


class UnknownVersion(ValueError):
    """No such version of FOCUS, or none that is written. The message names those that are."""

    def __init__(self, version: str) -> None:
        super().__init__(f"no FOCUS version {version!r}: there are {', '.join(VERSIONS)}")


@dataclass(frozen=True)
class Column:
    """A column. level: mandatory, conditional, recommended, or custom (ours); values: all that occur, () is any; sql: see focus.sql."""

    name: str
    type: Type
    level: str
    nulls: bool
    since: str
    sql: str
    meaning: str
    values: Sequence[str] = ()
    until: str = "99"

    def is_in(self, version: str) -> bool:
        """Whether a version has it."""
        return _order(self.since) <= _order(version) <= _order(self.until)


@dataclass(frozen=True)
class Rule:
    """What holds of `column` in rows in which each column of `when` has one of its values, and each of `unless` none of its; '' is null.

    must: `null`, `not null`, `>= 0`, `< COLUMN`, `= COLUMN`, `= COLUMN * COLUMN`.
    """

    column: str
    must: str
    when: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unless: Mapping[str, Sequence[str]] = field(default_factory=dict)
    since: str = "1.0"
    until: str = "99"

    def is_in(self, version: str) -> bool:
        """Whether a version demands it."""
        return _order(self.since) <= _order(version) <= _order(self.until)


def columns(version: str) -> list[Column]:
    """Of a file, in their order. Raises UnknownVersion."""
    _check(version)
    return [column for column in _read()[0] if column.is_in(version)]


def rules(version: str) -> list[Rule]:
    """What the specification demands of columns together. Raises UnknownVersion."""
    _check(version)
    return [rule for rule in _read()[1] if rule.is_in(version)]


def table() -> str:
    """All columns as a table in Markdown: what stands in each, and in which versions it is."""
    lines = ["| column | versions | type | level | what stands in it |", "| --- | --- | --- | --- | --- |"]
    for column in _read()[0]:
        versions = ", ".join(version for version in VERSIONS if column.is_in(version))
        null = ", may be null" if column.nulls else ""
        lines.append(f"| {column.name} | {versions} | {column.type}{null} | {column.level} | {column.meaning} |")
    return "\n".join(lines) + "\n"


def _check(version: str) -> None:
    if version not in VERSIONS:
        raise UnknownVersion(version)


@cache
def _read() -> tuple[list[Column], list[Rule]]:
    data = tomllib.loads(files("tallystick.attribution").joinpath("focus/columns.toml").read_text(encoding="utf-8"))
    return [Column(**column) for column in data["column"]], [Rule(**rule) for rule in data["rule"]]


def _order(version: str) -> tuple[int, ...]:
    return cast(tuple[int, ...], tuple(int(part) for part in version.split(".")))
