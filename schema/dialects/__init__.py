"""Dialects as data, and the SQL that is generated from them.

`dialects.csv` says how a source is recognised (prefix of the instrumentation scope's name, `=` for the whole name) and how it behaves;
`attributes.csv` which attributes fill which column, the preferred first; `usage.csv` what counts are called inside a usage object that
stands in a text (JSON or a Python repr). A new dialect is a row here and a recorded example, not a code path.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Final

LAYERS: Final = {"engine": 1, "gateway": 2, "framework": 3, "client": 4, "native": 5}
"""Where in the stack a source observes a call. Of two spans of one call with equal usage, the higher layer is kept."""


@dataclass(frozen=True)
class Dialect:
    """One row of `dialects.csv`.

    bare: what stands before `:` in `attributes.csv` for this source's attributes without a dot in their name, which mean nothing elsewhere.
    input_excludes_cache: '', 'any', or the provider for which the input count leaves out cache reads and writes.
    zero: 'unknown' where 0 tokens and 0 cost stand for not known.
    absent: 'zero' where a missing detail count means 0, as the official packages omit zeros.
    estimates: 'streams' where token counts of streams without cache counts are the instrumentation's guess.
    finish: what shows that a stream came to its end ('unsaid' where nothing does).
    """

    dialect: str
    scope: str
    layer: str
    bare: str
    input_excludes_cache: str
    zero: str
    absent: str
    estimates: str
    finish: str


@dataclass(frozen=True)
class Attribute:
    """One row of `attributes.csv`: `attribute` fills `column`; `unit` says how it is read (text, iso, flag, count, s, ms, usd)."""

    column: str
    dialect: str
    attribute: str
    unit: str
    note: str

    @property
    def numeric(self) -> bool:
        return self.unit in {"count", "s", "ms", "usd", "flag"}


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files("tallystick.schema.dialects").joinpath(name).read_text(encoding="utf-8").splitlines()))


@cache
def dialects() -> tuple[Dialect, ...]:
    """All dialects; the first whose scope matches applies, the last matches everything."""
    return tuple(Dialect(**row) for row in _rows("dialects.csv"))


@cache
def attributes() -> tuple[Attribute, ...]:
    """All attributes, those of a column together and the preferred first."""
    return tuple(Attribute(**row) for row in _rows("attributes.csv"))


def quote(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


@dataclass(frozen=True)
class Columns:
    """The columns that attributes fill, numbered from 1: texts first, then numbers.

    An attribute's rank is its column's number times 32 plus its place in the column's order, so that sorting a span's attributes
    by rank puts the preferred one of each column in front. beyond: the number, after all others, that stands for columns left out; 0 if none is.
    """

    texts: dict[str, int]
    numbers: dict[str, int]
    ranks: dict[str, int]
    beyond: int

    @property
    def first_number(self) -> int:
        """The smallest rank of a numeric attribute, or of one whose column is left out."""
        return (len(self.texts) + 1) * 32

    def name(self, number: int) -> str:
        """The column of this number."""
        return [*self.texts, *self.numbers][number - 1]

    def rank(self, key: str) -> str:
        """SQL: the rank of the attribute named by the expression `key`, 0 where no column wants it."""
        return f"transform({key}, [{', '.join(map(quote, self.ranks))}], [{', '.join(map(str, self.ranks.values()))}], 0)"

    def place(self, column: str) -> str | None:
        """SQL: the place among a span's attributes of the one that fills `column`, 0 where there is none; None if the column is left out."""
        number = self.texts.get(column) or self.numbers.get(column)
        return f"places[indexOf(columns, {number})]" if number else None


@cache
def columns(kept: frozenset[str] | None = None) -> Columns:
    """All of them, or those of `kept`. Raises ValueError where the table is inconsistent."""
    grouped = [(column, list(group)) for column, group in groupby(attributes(), key=lambda a: a.column)]
    if len({column for column, _ in grouped}) != len(grouped):
        raise ValueError("attributes.csv: the rows of a column must stand together")
    grouped.sort(key=lambda item: (kept is not None and item[0] not in kept, item[1][0].numeric))
    texts: dict[str, int] = {}
    numbers: dict[str, int] = {}
    ranks: dict[str, int] = {}
    beyond = 0
    for number, (column, group) in enumerate(grouped, start=1):
        if len(group) > 31 or len({a.unit for a in group}) != 1:
            raise ValueError(f"attributes.csv: {column}: one unit and at most 31 attributes a column")
        if kept is None or column in kept:
            (numbers if group[0].numeric else texts)[column] = number
        else:
            beyond = beyond or number
        for place, attribute in enumerate(group):
            if attribute.attribute in ranks:
                raise ValueError(f"attributes.csv: {attribute.attribute} fills two columns")
            ranks[attribute.attribute] = beyond * 32 or number * 32 + place
    return Columns(texts, numbers, ranks, beyond)


COUNTS: Final = (
    "input_total", "output", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "reasoning", "audio_input", "audio_output",
    "image_input",
)  # fmt: skip
"""The token counts, in the order of the array in which the statement carries them."""


def usage_names() -> list[list[str]]:
    """For each of `COUNTS`, the names it has inside a usage object."""
    names: dict[str, list[str]] = {}
    for row in _rows("usage.csv"):
        names.setdefault(row["column"], []).append(row["name"])
    return [names.get(column, [""]) for column in COUNTS]


@dataclass(frozen=True)
class Content:
    """One row of `content.csv`: attributes called `attribute` (`*` is any text) may hold what was asked or answered.

    keep: what of it is none, and needed: nothing; `all`; `ending`, the words of a message that tell how a call ended; or names of members of
    a JSON object, `..` before one found anywhere in the text.
    """

    attribute: str
    dialect: str
    keep: str
    note: str


@cache
def content() -> tuple[Content, ...]:
    """All rows; one that names an attribute in full comes before any with a `*`, of those the first that matches applies."""
    return tuple(Content(**row) for row in _rows("content.csv"))
