"""CSV that every reader splits alike, and no spreadsheet computes."""

import csv
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class _Text(Protocol):
    def write(self, text: str, /) -> object: ...


class _Lines(NamedTuple):
    """Writes rows that csv ends with CR LF, and so quotes both of, with a newline alone."""

    out: _Text

    def write(self, row: str) -> object:
        return self.out.write(row.removesuffix("\r\n") + "\n")


def safe_cell(text: str) -> str:
    """A name as a cell: where a spreadsheet would compute it, with an apostrophe before it (OWASP, CSV Injection). Not for numbers."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(out: _Text, rows: Iterable[Iterable[Any]]) -> None:
    """Rows of cells that are safe already, as RFC 4180 has them, but for lines that end in a newline alone; None is empty."""
    csv.writer(_Lines(out), lineterminator="\r\n").writerows(rows)
