"""What is asked of the engine for a FOCUS file, and its answer as the file's bytes."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple, cast

from tallystick.attribution.csv_cells import write_csv
from tallystick.attribution.focus.columns import Column, columns
from tallystick.attribution.moments import nanoseconds, utc_text
from tallystick.attribution.sql_files import statement
from tallystick.schema.models import Seen

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Granularity = Literal["hourly", "daily"]
Form = Literal["parquet", "csv"]

MEDIA_TYPES: Final[Mapping[Form, str]] = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv; charset=utf-8"}

SETTINGS: Final[Mapping[str, Any]] = {
    # A file of ten million calls takes as long as it takes, but no more memory than this; above a quarter of it groups and
    # what is to be sorted go to disk.
    "max_execution_time": 3600,
    "max_memory_usage": 1_000_000_000,
    "max_bytes_before_external_group_by": 250_000_000,
    "max_bytes_before_external_sort": 250_000_000,
    "max_temporary_data_on_disk_size_for_query": 20_000_000_000,
    "max_threads": 2,
    "max_block_size": 8192,
    "use_query_condition_cache": 0,
    # The order of a file is that of a subquery.
    "query_plan_remove_redundant_sorting": 0,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_parquet_string_as_string": 1,
    "output_format_parquet_row_group_size": 65_536,
    "output_format_parquet_parallel_encoding": 0,
    "output_format_decimal_trailing_zeros": 0,
    "date_time_output_format": "'iso'",
    "format_csv_null_representation": "''",
}
"""Settings of a connection that asks for files. Name → SQL literal."""

_PERIODS: Final[Mapping[Granularity, tuple[str, str]]] = {
    "hourly": ("toStartOfHour", "toIntervalHour(1)"),
    "daily": ("toStartOfDay", "toIntervalDay(1)"),
}
_CHUNK: Final = 1 << 18


@dataclass(frozen=True)
class Question:
    """Which charges: those that began in [since_ns, until_ns), nanoseconds since 1970, of `customer` (None: all).

    as_of: only what was entered before, to the millisecond (None: all). Raises UnknownVersion when it is asked.
    """

    version: str
    since_ns: int
    until_ns: int
    granularity: Granularity = "daily"
    customer: str | None = None
    as_of: datetime | None = None


class Day(NamedTuple):
    """What the ledger holds of a day (UTC, `2026-11-01`). entered_at: when the last entry was made, aware.

    tokens, unpriced_tokens: of all kinds, and those of calls without a price.
    """

    day: str
    entries: int
    entered_at: datetime
    cost_usd: Decimal
    tokens: int
    unpriced_tokens: int


class Tally(NamedTuple):
    """Rows of a file, and the sum of their BilledCost."""

    rows: int
    billed: Decimal


def days(reader: "Client", question: Question) -> list[Day]:
    """Days of the period that have entries, the earliest first. reader: of `Store.reader(tenant, SETTINGS)`."""
    found = reader.query(_sql("days").replace("{{where}}", _where(question)), parameters=_params(question))
    return [
        Day(str(day), int(entries), _aware(str(entered_at)), Decimal(str(cost)), int(tokens), int(unpriced))
        for day, entries, entered_at, cost, tokens, unpriced in found.result_rows
    ]


def tally(reader: "Client", question: Question) -> Tally:
    """What a file of this question holds."""
    billed = [column for column in columns(question.version) if column.name == "BilledCost"]
    inner, params = _asked(reader, question, billed, "parquet")
    text = f"SELECT count(), toString(toDecimal128(sum(BilledCost), 12)) FROM ({inner})"  # noqa: S608
    rows, total = reader.query(text, parameters=params).result_rows[0]
    return Tally(int(rows), Decimal(str(total)))


def stream(reader: "Client", question: Question, form: Form) -> Iterator[bytes]:
    """The file, in pieces: CSV as the engine makes it, with a header; Parquet when it is whole. Raises ClickHouseError."""
    described = columns(question.version)
    if form == "csv":
        yield _header(described)
    text, params = _asked(reader, question, described, form)
    answer = cast("BinaryIO", reader.raw_stream(text, parameters=params, fmt="CSV" if form == "csv" else "Parquet"))
    with closing(answer):
        while piece := answer.read(_CHUNK):
            yield piece


def by_day(question: Question, day: str) -> Question:
    """The same of one of its days."""
    start = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    since_ns = int(start.timestamp()) * 1_000_000_000
    return replace(question, since_ns=since_ns, until_ns=since_ns + 86_400_000_000_000)


def _asked(reader: "Client", question: Question, described: list[Column], form: Form) -> tuple[str, dict[str, Any]]:
    """The SQL of a file with these columns, and the values that bind to it."""
    listed = _public_prices(reader, question)
    params = _params(question) | ({} if listed is None else {"list_prices": listed})
    return _select(question, described, form, listed is not None), params


def _public_prices(reader: "Client", question: Question) -> str | None:
    """Prices of the installed public list for models that the user's file prices; None if there are no such."""
    from tallystick.attribution.prices import PriceBook

    own = reader.query(_sql("own_prices").replace("{{where}}", _where(question)), parameters=_params(question)).result_rows
    found = PriceBook().rows(Seen(*map(str, names)) for names in own)
    if not found:
        return None
    return json.dumps(
        [
            [
                row.provider,
                row.request_model,
                row.response_model,
                row.service_tier,
                nanoseconds(row.valid_from),
                row.price_ids,
                [f"{rate:f}" for rate in row.rates],
                row.above,
                row.day_starts,
            ]
            for row in found
        ]
    )


def _select(question: Question, described: list[Column], form: Form, listed: bool) -> str:
    """listed: the public list's prices are given as parameter `list_prices`."""
    function, step = _PERIODS[question.granularity]
    rates, public = _sql("rates"), _sql("list_prices")
    both = f"(SELECT book, rates, price_ids FROM prices UNION ALL SELECT book, rates, price_ids FROM ({public}))"  # noqa: S608
    return (
        _sql("focus")
        .replace("{{columns}}", ",\n    ".join(f"{_typed(column, form)} AS {column.name}" for column in described))
        .replace("{{period}}", function)
        .replace("{{step}}", step)
        .replace("{{list_price_id}}", _sql("list_price_id") if listed else "s.price_id")
        .replace("{{list_join}}", _sql("list_join").replace("{{list_prices}}", public) if listed else "")
        .replace("{{rates}}", rates.replace("{{prices}}", "prices"))
        .replace("{{list_rates}}", rates.replace("{{prices}}", both if listed else "prices"))
        .replace("{{where}}", _where(question))
    )


def _typed(column: Column, form: Form) -> str:
    """The column's SQL as its type is written: text never empty, names in CSV never formulas, times in CSV to the second."""
    match column.type:
        case "String" | "JSON":
            text = f"toValidUTF8({column.sql})"
            if form == "csv":
                text = f"if(match({text} AS {column.name}_text, '^[=+@\\t\\r-]'), concat('''', {column.name}_text), {column.name}_text)"
            return f"nullIf({text}, '')" if column.nulls else text
        case "Date/Time" if form == "parquet":
            return f"toDateTime64({column.sql}, 3, 'UTC')"
        case "Boolean":
            return f"CAST({column.sql}, 'Bool')"
        case _:
            return column.sql


def _where(question: Question) -> str:
    conditions = ["s.started_at >= {since:DateTime64(9, 'UTC')}", "s.started_at < {until:DateTime64(9, 'UTC')}"]
    if question.customer is not None:
        conditions.append("s.customer = {customer:String}")
    if question.as_of is not None:
        conditions.append("s.entered_at < {as_of:DateTime64(3, 'UTC')}")
    return " AND ".join(conditions)


def _params(question: Question) -> dict[str, Any]:
    params: dict[str, Any] = {"since": utc_text(question.since_ns), "until": utc_text(question.until_ns)}
    if question.customer is not None:
        params["customer"] = question.customer
    if question.as_of is not None:
        params["as_of"] = f"{question.as_of:%Y-%m-%d %H:%M:%S.%f}"[:-3]
    return params


def _header(described: list[Column]) -> bytes:
    line = io.StringIO()
    write_csv(line, [[column.name for column in described]])
    return line.getvalue().encode()


def _aware(text: str) -> datetime:
    return datetime.fromisoformat(text if text.endswith("Z") else f"{text.replace(' ', 'T')}+00:00")


def _sql(name: str) -> str:
    return statement(name, "attribution/focus")
