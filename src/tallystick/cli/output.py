"""What commands print: tables for people, one JSON array or CSV for programs."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from tallystick.attribution.csv_cells import safe_cell, write_csv
from tallystick.cli.options import Form

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 1000
"""Columns of a table that goes to a file or pipe: nothing is cut off or wrapped there."""

_NARROW = 14
"""Characters to which a column of names may be folded."""

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Field(NamedTuple):
    """A column of a printed table: `key` in the row's mapping, `show` turns the value into text."""

    key: str
    title: str
    show: Callable[[Any], str]
    right: bool = False


def emit(form: Form, rows: Sequence[Mapping[str, Any]], fields: Sequence[Field], footer: Mapping[str, Any] | None = None) -> None:
    """Print rows: JSON and CSV hold all of each row, a table the fields, with a total below if there is a `footer`."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv([field.key for field in fields] if not rows else list(rows[0]), (row.values() for row in rows))
    elif rows:
        print_table(rows, fields, footer)


def print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON array, an object a line. Decimals are strings: money is exact, and JSON's numbers may not be."""
    lines = [json.dumps({key: _plain(value) for key, value in row.items()}, ensure_ascii=False) for row in rows]
    click.echo("[" + ",\n ".join(lines) + "]")


def print_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """CSV (RFC 4180, but for lines that end in a newline alone); unknown is empty, and no text is a formula."""
    write_csv(sys.stdout, [map(safe_cell, header)])
    write_csv(sys.stdout, ([_cell(value) for value in row] for row in rows))


def print_table(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field], footer: Mapping[str, Any] | None = None) -> None:
    """A table for people, fitted to the terminal by folding names. A number is never cut: rather the table is too wide."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_footer=footer is not None, header_style="bold", footer_style="bold", padding=(0, 1, 0, 0))
    narrowest = 2
    for field in fields:
        cells = [_safe(field.show(row[field.key])) for row in rows]
        last = _safe(field.show(footer[field.key])) if footer is not None and field.key in footer else ""
        natural = max(map(len, [field.title, last, *cells]))
        least = natural if field.right else min(natural, _NARROW)
        narrowest += least + 2
        title, foot = Text(field.title), Text(last)
        align: Literal["left", "right"] = "right" if field.right else "left"
        table.add_column(title, foot, justify=align, min_width=least, no_wrap=field.right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_safe(field.show(row[field.key]))) for field in fields))
    screen = console()
    screen.width = max(screen.width, narrowest)
    screen.print(table, crop=False)


def console(stderr: bool = False) -> "Console":
    """Where tables and progress are printed: colours only on a terminal, and never where NO_COLOR is set."""
    from rich.console import Console

    wide = Console(stderr=stderr, highlight=False)
    return wide if wide.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def count(value: int | None) -> str:
    """A whole number with thousands marked; unknown is a dash."""
    return "–" if value is None else f"{value:,}"


def tokens(value: int | None) -> str:
    """A number of tokens to three digits; unknown is a dash."""
    if value is None or abs(value) < 10_000:
        return count(value)
    thousands = 1 if abs(value) < 999_500 else 2 if abs(value) < 999_500_000 else 3
    scaled = value / 1000**thousands
    return f"{scaled:,.{max(0, 3 - len(str(int(abs(scaled)))))}f}{'kMG'[thousands - 1]}"


def money(value: Decimal | None) -> str:
    """Dollars, with as many decimals as it takes to see something; what has no price is unpriced, never nothing."""
    if value is None:
        return "unpriced"
    decimals = 2 if value == 0 or abs(value) >= 1 else 4 if abs(value) >= Decimal("0.01") else 8
    return f"{value:,.{decimals}f}"


def percent(part: float | Decimal | None) -> str:
    """A share of 1 in percent, rounded towards zero so that 100 % means all; unknown is a dash."""
    if part is None:
        return "–"
    return f"{math.trunc(float(part) * 1000) / 10:.1f} %"


def text(value: object) -> str:
    """Any value; an empty one is called none."""
    return "(none)" if value in ("", None) else str(value)


def _safe(shown: str) -> str:
    # Names come from spans, and spans from anywhere: no escape sequence of theirs reaches the terminal.
    return shown.translate(_CONTROL)


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value:f}"
        case float() if not math.isfinite(value):
            return None
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _cell(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(value, str):
        return safe_cell(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain
