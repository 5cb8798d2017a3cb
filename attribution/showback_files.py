"""Statements as files: HTML to read and print, CSV for a spreadsheet, JSON for programs."""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import jinja2

from tallystick.attribution.csv_cells import safe_cell, write_csv
from tallystick.attribution.showback import Figures, Statement, Table

_COLUMNS: Final = (
    "statement", "for", "period", "as_of", "section", "row", "name", "entries", "calls", "priced_calls", "tokens", "cost_usd", "amount", "currency",
)  # fmt: skip
TITLES: Final[Mapping[str, str]] = {
    "charges": "Charges",
    "by_feature": "By feature",
    "by_model": "By model",
    "by_day": "By day (UTC)",
}


def html(statement: Statement) -> str:
    """One document without anything from elsewhere."""
    tables = (statement.charges, *statement.breakdowns)
    return _TEMPLATE.render(one=statement, tables=tables, who=_who(statement), titles=TITLES, as_of=_as_of(statement))


def as_csv(statement: Statement) -> str:
    """A row a line of a section. The amounts of its rows `line` and `rounding` sum to that of its row `total`."""
    out = io.StringIO()
    head = [statement.number, safe_cell(_who(statement)), statement.period.name, _as_of(statement)]
    write_csv(out, [_COLUMNS, *([*head, *row, statement.terms.currency] for row in _lines(statement))])
    return out.getvalue()


def as_json(statement: Statement) -> str:
    """An object; amounts are strings."""
    document = {"number": statement.number, "as_of": _as_of(statement), **statement.content()}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


WRITERS: Final[Mapping[str, Callable[[Statement], str]]] = {"html": html, "csv": as_csv, "json": as_json}
MEDIA_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}


def _lines(statement: Statement) -> Iterator[list[Any]]:
    for table in (statement.charges, *statement.breakdowns):
        yield from _section(table)
    for name, figures in statement.sources:
        yield ["price_sources", "line", safe_cell(name), *_figures(figures), ""]
    yield ["period_before", "line", statement.period.before().name, *_figures(statement.before), ""]


def _section(table: Table) -> Iterator[list[Any]]:
    for line in table.lines:
        yield [
            table.title,
            "line",
            safe_cell(line.name),
            *_figures(line.figures),
            "" if line.amount is None else f"{line.amount:f}",
        ]
    empty = [""] * 6
    yield [table.title, "rounding", *empty, f"{table.rounding:f}"]
    yield [table.title, "total", *empty, f"{table.total:f}"]


def _figures(figures: Figures) -> list[Any]:
    usd = "" if figures.cost_usd is None else f"{figures.cost_usd:f}"
    return [figures.entries, figures.calls, figures.priced_calls, figures.tokens, usd]


def _who(statement: Statement) -> str:
    return ", ".join(f"{name} {value or '(none)'}" for name, value in statement.who.items()) or "all"


def _as_of(statement: Statement) -> str:
    return statement.as_of.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _count(value: int) -> str:
    return f"{value:,}"


def _money(value: Decimal | None) -> str:
    return "unpriced" if value is None else f"{value:,.2f}"


def _exact(value: Decimal | None) -> str:
    return "unpriced" if value is None else f"{value:,f} USD"


def _percent(part: int, whole: int) -> str:
    # Towards zero: 100 % means all.
    return "–" if not whole else f"{part * 1000 // whole / 10:.1f} %"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "money": _money, "exact": _exact}
    environment.globals["percent"] = _percent
    return environment.get_template("statement.html.j2")


_TEMPLATE: Final = _template()
