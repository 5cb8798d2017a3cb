"""A line of a provider's invoice or usage report, as all readers give it. Pure."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final, TypeVar

BUCKETS: Final[tuple[str, ...]] = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
"""Disjoint: input is what neither came from a cache nor went into one. A write for a time not told is one for five minutes."""

_Number = TypeVar("_Number", int, Decimal)

USD: Final = "USD"

MOST_DECIMALS: Final = 12
"""Of an amount of money: the ledger's."""


class BadInvoice(ValueError):
    """A file can't be used. where: file, and line or JSON path, '' if the whole; kept: what of it was; hint: what to do."""

    def __init__(self, where: str, what: str, hint: str, kept: str = "nothing of it was used") -> None:
        super().__init__(f"{where}: {what}; {kept}")
        self.where, self.what, self.hint, self.kept = where, what, hint, kept


@dataclass(frozen=True)
class InvoiceLine:
    """What a provider says of one model (or item) on one day.

    provider, model: as the price book knows them, model '' for what is no use of a model (tax, credit, web search), which `item` names.
    bucket: of BUCKETS, '' where the line doesn't say. tokens, cost_usd: None where the line doesn't say. currency: the invoice's.
    decimals: with how many the cost was written. count: of how many lines of the file this is the sum. source: which export.
    where: file and line or JSON path, of the first. began, ended: the time it is about, where it states it.
    """

    provider: str
    model: str
    day: date
    item: str
    bucket: str
    tokens: int | None
    cost_usd: Decimal | None
    currency: str
    decimals: int
    source: str
    where: str
    count: int = 1
    key: str = field(default="", compare=False)
    """What makes the line this one in its export; two with the same key are one line, read twice."""
    began: datetime | None = field(default=None, compare=False)
    ended: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Invoice:
    """What was read. notes: what was left out or read twice, in words."""

    lines: Sequence[InvoiceLine]
    notes: Sequence[str] = ()


def combined(read: Iterable[Invoice]) -> Invoice:
    """All files as one: what stands in several is kept once, the rest is summed by source, provider, model, day, item and bucket.

    Raises BadInvoice where the same line has two amounts, reports overlap, or two sources state the same figure of a model's day.
    """
    seen: dict[str, InvoiceLine] = {}
    twice: dict[str, int] = {}
    notes: list[str] = []
    for invoice in read:
        notes += invoice.notes
        for line in invoice.lines:
            first = seen.setdefault(f"{line.source}|{line.key}|{line.bucket}", line)
            if first is line:
                continue
            if (first.tokens, first.cost_usd) != (line.tokens, line.cost_usd):
                hint = "the report was fetched twice, and had changed: leave out the older file"
                raise BadInvoice(line.where, f"states again, with other amounts, what {first.where} states", hint)
            file = line.where.partition(":")[0]
            twice[file] = twice.get(file, 0) + 1
    notes += [
        f"{file}: {count:,} lines stand there twice or in a file before it, and were kept once" for file, count in twice.items()
    ]
    _check_overlap(seen.values())
    lines = _summed(seen.values())
    _check_sources(lines)
    return Invoice(lines, tuple(notes))


def digest(lines: Iterable[InvoiceLine]) -> str:
    """12 hex digits that are the same for the same content, in whatever order and files it came."""
    facts = sorted(
        f"{one.provider}|{one.model}|{one.day}|{one.item}|{one.bucket}|{one.tokens}|{None if one.cost_usd is None else one.cost_usd.normalize()}"
        for one in lines
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def amount(text: object, where: str, *, comma: bool = False) -> Decimal:
    """An amount of money as written; with `comma`, `1.234,50` is 1234.50. Raises BadInvoice."""
    written = str(text).strip().replace(" ", "").replace("\xa0", "").removeprefix("$")
    if comma:
        written = written.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d*)?", written):
        written = written.replace(",", "")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", written) or len(written) > 60:
        raise BadInvoice(where, f"{str(text)[:40]!r} is no amount", "write it as 1234.50")
    return Decimal(written)


def tokens(text: object, where: str, *, comma: bool = False) -> int:
    """A number of tokens. Raises BadInvoice where it isn't whole, or negative."""
    number = amount(text, where, comma=comma)
    if number != number.to_integral_value():
        raise BadInvoice(where, f"{text!r} is no whole number of tokens", "write tokens, not thousands of them")
    if number < 0:
        raise BadInvoice(where, f"{text} tokens: less than none were used", "a credit is an amount of money with no tokens")
    if number >= 10**18:
        raise BadInvoice(where, f"{text} tokens are more than anybody uses", "check the column")
    return int(number)


def money(value: Decimal, currency: str, rates: Mapping[str, Decimal], where: str) -> tuple[Decimal, int]:
    """An amount in USD, rounded to the ledger's decimals, and with how many decimals it was written. Raises BadInvoice without a rate."""
    exponent = value.as_tuple().exponent
    decimals = min(max(0, -exponent) if isinstance(exponent, int) else 0, MOST_DECIMALS)
    name = currency.strip().upper() or USD
    if name != USD and name not in rates:
        hint = f"say what one {name[:8]} was in USD: --rate {name[:8]}=1.08"
        raise BadInvoice(where, f"the amount is in {name[:8]}, and the ledger in USD", hint)
    usd = value if name == USD else value * rates[name]
    if abs(usd) >= 10**12:
        raise BadInvoice(where, f"{value} is more than anybody pays", "check the column")
    return round(usd, MOST_DECIMALS), decimals


def _summed(lines: Iterable[InvoiceLine]) -> list[InvoiceLine]:
    sums: dict[tuple[object, ...], InvoiceLine] = {}
    for line in lines:
        key = (line.source, line.provider, line.model, line.day, line.item, line.bucket)
        first = sums.get(key)
        if first is None:
            sums[key] = line
            continue
        sums[key] = replace(
            first,
            tokens=_plus(first.tokens, line.tokens),
            cost_usd=_plus(first.cost_usd, line.cost_usd),
            decimals=max(first.decimals, line.decimals),
            count=first.count + line.count,
        )
    return sorted(sums.values(), key=lambda one: (one.day, one.provider, one.model, one.item, one.bucket, one.source))


def _plus(one: _Number | None, other: _Number | None) -> _Number | None:
    return other if one is None else one if other is None else one + other


def _check_overlap(lines: Iterable[InvoiceLine]) -> None:
    """Reports by the hour and by the day of the same time would count it twice."""
    by_source: dict[str, dict[tuple[datetime, datetime], str]] = {}
    for line in lines:
        if line.began is not None and line.ended is not None:
            by_source.setdefault(line.source, {}).setdefault((line.began, line.ended), line.where)
    for periods in by_source.values():
        ordered = sorted(periods)
        for (_, ended), later in pairwise(ordered):
            if later[0] < ended:
                where = periods[later]
                raise BadInvoice(where, "its time is part of another bucket's", "take one bucket_width, and each file once")


def _check_sources(lines: Iterable[InvoiceLine]) -> None:
    """Each figure of a model's day has one source: usage may come from one export and money from another."""
    told: dict[tuple[str, str, str, date], InvoiceLine] = {}
    for line in lines:
        for figure, value in (("tokens", line.tokens), ("cost", line.cost_usd)):
            if value is None or not line.model:
                continue
            first = told.setdefault((figure, line.provider, line.model, line.day), line)
            if first.source != line.source:
                what = f"states the {figure} of {line.model} on {line.day}, as {first.where} does"
                raise BadInvoice(line.where, what, "take one export for the tokens and one for the money")
