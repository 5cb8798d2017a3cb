"""Statements: what a customer or team cost in a period, from the ledger as it was known at a moment, to show or to charge.

A statement adds up: amounts are exact until each is rounded to cents, and the line `rounding` holds what that leaves over.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallystick.attribution.moments import moment, nanoseconds
from tallystick.attribution.months import Period, period_named
from tallystick.attribution.spend import Ask, check_dimension, entered_before, expression, filters, period

_TEXT: Final = (Path(__file__).parent / "queries" / "statement.sql").read_text(encoding="utf-8")
_CENT: Final = Decimal("0.01")
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
_AT_ONCE: Final = 200
"""Statements that are made of the same answers: an answer has at most 100,000 rows."""

_ENTRIES: Final[Mapping[str, str]] = {
    "call": "model calls",
    "void": "calls counted twice, taken back",
    "reprice": "corrected prices",
    "allocation": "shared cost",
    "trueup": "difference to the provider's invoice",
}
_SOURCE: Final = "if(price_id = '', '', splitByChar(',', price_id)[1])"


class Terms(NamedTuple):
    """How cost is charged: rate is the price of one USD in the currency; the markup comes on top of everything."""

    markup_percent: Decimal = Decimal(0)
    currency: str = "USD"
    rate: Decimal = Decimal(1)


class Figures(NamedTuple):
    """Of some entries. tokens: of all buckets; cost_usd: None where nothing is priced."""

    entries: int
    calls: int
    tokens: int
    priced_calls: int
    priced_tokens: int
    cost_usd: Decimal | None


class Line(NamedTuple):
    """amount: cost in the currency, rounded to cents; None where nothing is priced."""

    name: str
    figures: Figures
    amount: Decimal | None


class Table(NamedTuple):
    """The amounts and `rounding` sum to `total`."""

    title: str
    lines: tuple[Line, ...]
    rounding: Decimal
    total: Decimal


class Tokens(NamedTuple):
    """By bucket."""

    input: int
    cache_read: int
    cache_write: int
    output: int


@dataclass(frozen=True)
class Statement:
    """What one is told. charges: by kind of entry and reason, with the markup as its last line; its total is what is due.

    number: the same for the same content. before: of the period before. breakdowns are without the markup.
    """

    who: Mapping[str, str]
    period: Period
    as_of: datetime
    terms: Terms
    total: Figures
    tokens: Tokens
    charges: Table
    breakdowns: tuple[Table, ...]
    sources: tuple[tuple[str, Figures], ...]
    before: Figures

    @property
    def number(self) -> str:
        content = json.dumps(self.content(), sort_keys=True, ensure_ascii=True)
        return f"S-{hashlib.sha256(content.encode()).hexdigest()[:12].upper()}"

    @property
    def change_usd(self) -> Decimal | None:
        """Against the period before; None where one of them is unknown."""
        now, before = self.total.cost_usd, self.before.cost_usd
        return None if now is None or before is None else now - before

    def content(self) -> dict[str, Any]:
        """All but when it was known, as JSON has it: amounts are strings with all decimals."""
        return {
            "for": dict(self.who),
            "period": self.period.name,
            "since": self.period.since.isoformat(),
            "until": self.period.until.isoformat(),
            "currency": self.terms.currency,
            "rate": f"{self.terms.rate:f}",
            "markup_percent": f"{self.terms.markup_percent:f}",
            "due": f"{self.charges.total:f}",
            "total": _plain(self.total),
            "tokens": self.tokens._asdict(),
            "charges": _table(self.charges),
            **{table.title: _table(table) for table in self.breakdowns},
            "price_sources": [{"name": name, **_plain(figures)} for name, figures in self.sources],
            "period_before": {"period": self.period.before().name, **_plain(self.before)},
            "change_usd": _text(self.change_usd),
        }


class Wanted(NamedTuple):
    """Entries of a period that fit `where` (dimension → value; none: all), as they were known before `as_of`."""

    where: Mapping[str, str]
    period: Period
    as_of: datetime


def asked(where: Iterable[str], period_name: str, as_of: str | None, now_ns: int) -> Wanted:
    """Of texts: `DIMENSION=VALUE` each, a period's name, and an age or a time (None: now). Raises ValueError, UnknownDimension."""
    pairs = [one.partition("=") for one in where]
    if wrong := next((one for one, equals, _ in pairs if not one or not equals), None):
        raise ValueError(f"{wrong!r} isn't DIMENSION=VALUE, such as customer=acme")
    for name, _, _ in pairs:
        check_dimension(name)
    known = now_ns if as_of is None else moment(as_of, now_ns)
    # The ledger dates what it enters to the millisecond.
    at = datetime.fromtimestamp(known // 10**9, UTC) + timedelta(milliseconds=known // 10**6 % 1000)
    return Wanted({name: value for name, _, value in pairs}, period_named(period_name), at)


def terms(markup_percent: Decimal, currency: str, rate: Decimal | None) -> Terms:
    """Raises ValueError where a currency other than USD has no rate."""
    if rate is None and currency != "USD":
        raise ValueError(f"{currency} needs its rate: what 1 USD costs in {currency}")
    return Terms(markup_percent, currency, Decimal(1) if rate is None else rate)


def statement(ask: Ask, wanted: Wanted, terms: Terms) -> Statement:
    """One for all of them. Raises UnknownDimension, and what `ask` raises."""
    return _Gathered(ask, wanted, terms).statement("")


def statements(ask: Ask, each: str, wanted: Wanted, terms: Terms) -> Iterator[Statement]:
    """One for each value of a dimension that has entries; together they are all that is wanted."""
    values = sorted({row["who"] for row in _rows(ask, "'' AS name,", wanted, each)})
    for first in range(0, len(values), _AT_ONCE):
        some = tuple(values[first : first + _AT_ONCE])
        yield from map(_Gathered(ask, wanted, terms, each, some).statement, some)


class _Gathered:
    """Figures of several statements, by whom each is for ('' where there is one only)."""

    def __init__(self, ask: Ask, wanted: Wanted, terms: Terms, each: str | None = None, values: tuple[str, ...] = ()) -> None:
        def told(by: str, during: Wanted = wanted) -> dict[str, list[Mapping[str, Any]]]:
            rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for row in _rows(ask, by, during, each, values):
                rows[row["who"]].append(row)
            return rows

        self._wanted, self._each, self._terms = wanted, each, terms
        self._entries = told("entry AS kind, reason AS name,")
        self._breakdowns = {name: told(f"toString({expression(name, '', {})}) AS name,") for name in ("feature", "model", "day")}
        self._sources = told(f"{_SOURCE} AS name,")
        self._before = told("'' AS name,", wanted._replace(period=wanted.period.before()))

    def statement(self, who: str) -> Statement:
        entries = self._entries[who]
        total = _figures(entries)
        return Statement(
            who={**self._wanted.where, **({self._each: who} if self._each else {})},
            period=self._wanted.period,
            as_of=self._wanted.as_of,
            terms=self._terms,
            total=total,
            tokens=Tokens(*(sum(row[name] for row in entries) for name in Tokens._fields)),
            charges=_charges(entries, total, self._terms),
            breakdowns=tuple(
                _broken_down(f"by_{name}", rows[who], total, self._terms, in_order=name == "day")
                for name, rows in self._breakdowns.items()
            ),
            sources=tuple(sorted((row["name"], _figures([row])) for row in self._sources[who])),
            before=_figures(self._before[who]),
        )


def _rows(ask: Ask, by: str, wanted: Wanted, each: str | None, values: tuple[str, ...] = ()) -> Sequence[Mapping[str, Any]]:
    params: dict[str, Any] = {}
    who = "''" if each is None else f"toString({expression(each, 'each_tag', params)})"
    conditions = [
        period(nanoseconds(wanted.period.since), nanoseconds(wanted.period.until), params),
        *filters(wanted.where, params),
        *entered_before(nanoseconds(wanted.as_of), params),
    ]
    if values:
        params["values"] = list(values)
        conditions.append(f"{who} IN {{values:Array(String)}}")
    text = "\n".join(line for line in _TEXT.splitlines() if not line.startswith("--"))
    return ask(text.replace("/*who*/", who).replace("/*by*/", by).replace("/*conditions*/", " AND ".join(conditions)), params)


def _figures(rows: Iterable[Mapping[str, Any]]) -> Figures:
    rows = list(rows)
    known = [row["cost"] for row in rows if row["cost"] is not None]
    tokens = sum(row["input"] + row["cache_read"] + row["cache_write"] + row["output"] for row in rows)
    entries, calls, priced_calls, priced_tokens = (
        sum(row[name] for row in rows) for name in ("entries", "n", "priced_calls", "priced_tokens")
    )
    return Figures(entries, calls, tokens, priced_calls, priced_tokens, sum(known, Decimal(0)) if known else None)


def _charges(rows: Iterable[Mapping[str, Any]], total: Figures, terms: Terms) -> Table:
    order = list(_ENTRIES)
    found = sorted(rows, key=lambda row: (order.index(row["kind"]), row["name"]))
    named = [(_ENTRIES[row["kind"]] + (f": {row['name']}" if row["name"] else ""), _figures([row])) for row in found]
    lines = [_line(name, figures, terms) for name, figures in named]
    if terms.markup_percent:
        markup = (total.cost_usd or Decimal(0)) * terms.markup_percent / 100
        lines.append(_line(f"markup {terms.markup_percent:f} %", Figures(0, 0, 0, 0, 0, markup), terms))
    return _added_up("charges", lines, (total.cost_usd or Decimal(0)) * (1 + terms.markup_percent / 100), terms)


def _broken_down(title: str, rows: Iterable[Mapping[str, Any]], total: Figures, terms: Terms, *, in_order: bool) -> Table:
    lines = [_line(str(row["name"]), _figures([row]), terms) for row in rows]
    lines.sort(key=lambda line: (line.name,) if in_order else (-(line.figures.cost_usd or Decimal(0)), line.name))
    return _added_up(title, lines, total.cost_usd or Decimal(0), terms)


def _line(name: str, figures: Figures, terms: Terms) -> Line:
    return Line(name, figures, None if figures.cost_usd is None else _cents(figures.cost_usd, terms))


def _added_up(title: str, lines: Sequence[Line], usd: Decimal, terms: Terms) -> Table:
    total = _cents(usd, terms)
    return Table(title, tuple(lines), total - sum((line.amount or Decimal(0) for line in lines), Decimal(0)), total)


def _cents(usd: Decimal, terms: Terms) -> Decimal:
    return _EXACT.multiply(usd, terms.rate).quantize(_CENT, context=_EXACT)


def _plain(figures: Figures) -> dict[str, Any]:
    return figures._asdict() | {"cost_usd": _text(figures.cost_usd)}


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def _table(table: Table) -> dict[str, Any]:
    return {
        "lines": [{"name": line.name, **_plain(line.figures), "amount": _text(line.amount)} for line in table.lines],
        "rounding": f"{table.rounding:f}",
        "total": f"{table.total:f}",
    }
