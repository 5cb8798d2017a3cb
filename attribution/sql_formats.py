"""Answers to users' SQL as files: CSV and NDJSON as the JSON answer has the values, Arrow and Parquet as the engine writes them.

An answer is whole before its first byte leaves: it has at most 100,000 rows, and a file that ends in an error looks like one that
doesn't.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tallystick.attribution.csv_cells import safe_cell, write_csv
from tallystick.attribution.user_sql import BadQuery, Checked, Column, Result, checked, result, written

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_NUMBERS: Final = ("Decimal", "Float", "Int", "UInt", "BFloat")


class Format(StrEnum):
    """How an answer may be written."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


MEDIA_TYPES: Final[Mapping[Format, str]] = {
    Format.JSON: "application/json",
    Format.NDJSON: "application/x-ndjson",
    Format.CSV: "text/csv",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.PARQUET: "application/vnd.apache.parquet",
}

_ENGINE: Final = {Format.ARROW: "ArrowStream", Format.PARQUET: "Parquet"}


def file(reader: "Client", query: str, params: Mapping[str, Any] | None, form: Format, mark: str = "") -> bytes:
    """The answer of a user's query in any format but JSON. Raises BadQuery, QueryTooExpensive.

    reader, params: as `user_sql.run` takes them. mark: what KILL QUERY finds it by.
    """
    question = checked(reader, query, params)
    match form:
        case Format.CSV:
            return _csv(result(reader, question, mark)).encode()
        case Format.NDJSON:
            return "".join(_ndjson(result(reader, question, mark))).encode()
        case Format.ARROW | Format.PARQUET:
            return written(reader, _with_names_of_enums(reader, question, mark), _ENGINE[form], mark)
        case Format.JSON:
            raise ValueError("JSON is the form of a Result")


def _csv(answer: Result) -> str:
    """RFC 4180, but for lines that end in a newline alone; unknown is empty; arrays and maps are JSON."""
    lines = io.StringIO()
    numbers = [_is_number(column.type) for column in answer.columns]
    write_csv(lines, [[safe_cell(column.name) for column in answer.columns]])
    write_csv(lines, ([v if number else _cell(v) for v, number in zip(row, numbers, strict=True)] for row in answer.rows))
    return lines.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return safe_cell(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _is_number(kind: str) -> bool:
    return kind.removeprefix("LowCardinality(").removeprefix("Nullable(").startswith(_NUMBERS)


def _ndjson(answer: Result) -> Iterator[str]:
    _check_names(answer.columns)
    names = [column.name for column in answer.columns]
    for row in answer.rows:
        yield json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n"


def _with_names_of_enums(reader: "Client", question: Checked, mark: str) -> Checked:
    """The same rows, and of an Enum the name: Arrow would have its number, Parquet its bytes."""
    described = result(reader, Checked(f"DESCRIBE TABLE ({question.text})", question.values), mark)
    columns = [Column(row[0], row[1]) for row in described.rows]
    _check_names(columns)
    enums = [_quoted(column.name) for column in columns if column.type.removeprefix("Nullable(").startswith("Enum")]
    if not enums:
        return question
    named = ", ".join(f"toString({name}) AS {name}" for name in enums)
    # Made of what was checked, and checked as a whole.
    return checked(reader, f"SELECT * REPLACE ({named}) FROM ({question.text})", question.values)  # noqa: S608


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _check_names(columns: Sequence[Column]) -> None:
    name, times = Counter(column.name for column in columns).most_common(1)[0]
    if times > 1:
        raise BadQuery("same_name", f"{times} columns are called {name}.", "Here each needs a name of its own: write AS.")
