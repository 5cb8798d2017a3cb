"""Amazon Bedrock in AWS Cost and Usage Reports: CUR 2.0 (`line_item_usage_type`) and legacy (`lineItem/UsageType`), as CSV. Pure.

Columns: https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-line-item.html. Usage types of Bedrock:
https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-understanding-cur-data.html.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from tallystick.attribution.invoices.lines import BadInvoice, Invoice, InvoiceLine, amount, money
from tallystick.attribution.invoices.names import item, known_model
from tallystick.attribution.invoices.sheet import Row, Sheet, missing

SOURCE: Final = "aws_cur"
_NEEDED: Final = ("line_item_usage_start_date", "line_item_usage_type", "line_item_unblended_cost", "line_item_line_item_type")
_USAGE: Final = frozenset({"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"})
_UNITS: Final = {
    "": 1,
    "tokens": 1,
    "token": 1,
    "1ktokens": 1_000,
    "1mtokens": 1_000_000,
    "thousandtokens": 1_000,
    "milliontokens": 1_000_000,
}


def is_cur(header: tuple[str, ...]) -> bool:
    return any(_snake(column).startswith("line_item_") for column in header)


def read(sheet: Sheet, name: str, rates: Mapping[str, Decimal]) -> Invoice:
    """Lines of Amazon Bedrock; those of other services are left out, and counted in the notes. Raises BadInvoice."""
    columns = {column: _snake(column) for column in sheet.header}
    for wanted in _NEEDED:
        if wanted not in columns.values():
            raise missing(wanted, tuple(columns.values()), name)
    lines, others = [], 0
    for row in sheet.rows:
        named = Row({columns[column]: cell for column, cell in row.cells.items()}, row.where, row.key)
        if not _is_bedrock(named):
            others += 1
            continue
        lines.append(_line(named, sheet.comma, rates))
    return Invoice(lines, (f"{name}: {others:,} lines of other services than Amazon Bedrock were left out",) if others else ())


def units(unit: str, where: str) -> int:
    """How many tokens one of a unit is: `1K tokens` are 1,000. Raises BadInvoice."""
    found = _UNITS.get(unit.lower().replace(" ", ""))
    if found is None:
        raise BadInvoice(where, f"{unit[:30]!r} is no unit of tokens", "known are tokens, 1K tokens and 1M tokens")
    return found


def counted(quantity: str, unit: str, where: str, *, comma: bool) -> int:
    """Tokens of a quantity in a unit, which may be a fraction of a thousand. Raises BadInvoice."""
    number = amount(quantity, where, comma=comma) * units(unit, where)
    if number < 0:
        raise BadInvoice(
            where, f"{number.normalize():f} tokens: less than none were used", "a credit is an amount of money with no tokens"
        )
    return round(number)


def _line(row: Row, comma: bool, rates: Mapping[str, Decimal]) -> InvoiceLine:
    usage_type, kind = row.get("line_item_usage_type"), row.get("line_item_line_item_type")
    about = item("aws", usage_type) if kind in _USAGE else item("", "")
    model = known_model("aws", about.model) if about.model else ""
    currency = row.get("line_item_currency_code") or "USD"
    usd, decimals = money(amount(row.get("line_item_unblended_cost") or "0", row.where, comma=comma), currency, rates, row.where)
    quantity, unit = row.get("line_item_usage_amount"), row.get("pricing_unit", "line_item_usage_unit")
    return InvoiceLine(
        provider="aws",
        model=model,
        day=row.day("line_item_usage_start_date"),
        item="" if model else _other(kind, usage_type, row.get("line_item_line_item_description")),
        bucket=about.bucket,
        tokens=counted(quantity, unit, row.where, comma=comma) if model and about.bucket and quantity else None,
        cost_usd=usd,
        currency=currency.upper(),
        decimals=decimals,
        source=SOURCE,
        where=row.where,
        key=row.key,
    )


def _is_bedrock(row: Row) -> bool:
    told = row.get("line_item_product_code") + row.get("product_servicecode", "product_product_name", "product")
    # Models of the marketplace have product codes of their own; their names say where they run.
    return "bedrock" in f"{told}{row.get('line_item_line_item_description')}".lower()


def _other(kind: str, usage_type: str, description: str) -> str:
    return (usage_type if kind in _USAGE else kind or description)[:100] or "other"


def _snake(column: str) -> str:
    """`lineItem/UsageStartDate` and `line_item_usage_start_date` are one column."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip().replace("/", "_")).lower().replace("__", "_")
