"""A CSV file as rows by column: with or without BOM, by comma, semicolon or tab, with decimal point or comma. Pure."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Final, NamedTuple

from tallystick.attribution.invoices.lines import BadInvoice

MOST_COLUMNS: Final = 2_000
_COMMA: Final = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+")


class Row(NamedTuple):
    """A row by column name, where it stands (`file:line`), and what makes it this one: its content."""

    cells: dict[str, str]
    where: str
    key: str

    def get(self, *names: str) -> str:
        """The first of these columns that isn't empty, '' if none is."""
        return next((value for name in names if (value := self.cells.get(name, "").strip())), "")

    def day(self, *names: str) -> date:
        """The UTC day of a time in the first of these columns. Raises BadInvoice."""
        return self.time(*names).date()

    def time(self, *names: str) -> datetime:
        """A time in the first of these columns; without a zone it is UTC. Raises BadInvoice."""
        written = self.get(*names)
        try:
            given = datetime.fromisoformat(written)
        except ValueError:
            what = f"{names[0]} is {written[:30]!r}, which is no day" if written else f"{names[0]} is empty"
            raise BadInvoice(self.where, what, "write 2026-10-31, or a time as ISO 8601 has it") from None
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)


class Sheet(NamedTuple):
    """header: names of columns as written. comma: whether decimals are written with a comma."""

    header: tuple[str, ...]
    rows: list[Row]
    comma: bool


def read(text: str, name: str) -> Sheet:
    """Raises BadInvoice where there is no header, or a row is cut off."""
    text = text.removeprefix("\ufeff")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    parsed = _parsed(text, delimiter, name)
    found = next(parsed, None)
    if found is None or len(found[1]) < 2:
        raise BadInvoice(name, "has no header of columns", "docs/reconciliation.md has the files that are read")
    header = tuple(column.strip() for column in found[1])
    if len(header) > MOST_COLUMNS:
        raise BadInvoice(name, f"has {len(header):,} columns", "docs/reconciliation.md has the files that are read")
    double = [column for column, count in Counter(header).items() if count > 1 and column]
    if double:
        raise BadInvoice(f"{name}:1", f"has two columns {double[0]!r}", "leave one")
    rows: list[Row] = []
    for line, cells in parsed:
        where = f"{name}:{line}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            what = f"has {len(cells)} cells, and the header {len(header)} columns"
            raise BadInvoice(
                where,
                what,
                "the file may be cut off: export it again",
                f"{len(rows):,} rows before it are whole, and weren't used",
            )
        rows.append(Row(dict(zip(header, cells, strict=True)), where, "\x1f".join(cells)))
    comma = delimiter == ";" and any(_COMMA.fullmatch(cell.strip()) for row in rows for cell in row.cells.values())
    return Sheet(header, rows, comma)


def missing(wanted: str, header: tuple[str, ...], name: str) -> BadInvoice:
    """No such column; proposes what may have been meant."""
    close = get_close_matches(wanted.lower(), [column.lower() for column in header], n=1)
    hint = f"is {close[0]!r} meant? rename it" if close else "docs/reconciliation.md has the columns of each file"
    return BadInvoice(f"{name}:1", f"has no column {wanted!r}", hint)


def _parsed(text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        hint = "the file may be cut off: export it again"
        raise BadInvoice(f"{name}:{reader.line_num}", f"isn't CSV ({error})", hint) from None
