"""SQL of users: read by the engine's parser as data, checked, run in a cage, answered as JSON has it.

Two cages: the engine's own (grants, row filter, read-only; `Store.reader`), and the check of the query's tree (user_sql_check).
The tree isn't EXPLAIN AST's, which hides the function of `* APPLY f` and, embedded, runs a second statement after `;`.
parseQueryToJSON is a function of a string, refuses a second statement and shows everything.

What runs is the text that the engine wrote anew from what it had read, and whose tree was checked: without comments, and with one
way to read it.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.parsing import parser
from tallystick.attribution.user_sql_check import ONLY_SELECT, BadQuery, check

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = [
    "READER_SETTINGS",
    "BadQuery",
    "Checked",
    "Column",
    "QueryTooExpensive",
    "Read",
    "Result",
    "allowed",
    "check_size",
    "checked",
    "engine",
    "read",
    "result",
    "run",
    "written",
]

MAX_QUERY_BYTES: Final = 65_536
MAX_NESTING: Final = 200
_MAX_WRITTEN_BYTES: Final = 1 << 24

READER_SETTINGS: Final[Mapping[str, Any]] = {
    # What a query may take. In excess the engine throws.
    "max_execution_time": 30,
    "max_memory_usage": 500_000_000,
    "max_temporary_data_on_disk_size_for_query": 4_000_000_000,
    "max_result_rows": 100_000,
    "max_result_bytes": 100_000_000,
    "max_threads": min(4, os.cpu_count() or 1),
    "max_parser_depth": 300,
    "max_parser_backtracks": 100_000,
    "max_ast_depth": 300,
    "max_ast_elements": 20_000,
    "http_max_tries": 1,
    # Shared by all tenants, whatever their row filter.
    "use_query_condition_cache": 0,
    # How values are read and written.
    "date_time_output_format": "'iso'",
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_decimals": 1,
    "output_format_json_quote_denormals": 0,
    "output_format_json_escape_forward_slashes": 0,
}
"""Settings of a connection that `run` may use; to be made before it becomes read-only. Name → SQL literal."""

_MESSAGE: Final = 400
_NOISE: Final = re.compile(
    r"[.:,]? in (?:scope|query) |\. Expected one of|:? ?\(version |: ?While |\. Stack trace|\s*\([A-Z][A-Z0-9_]+\)$",
    re.IGNORECASE,
)
"""Where what an error says of the query ends."""

_READ: Final = (Path(__file__).parent / "queries" / "read_user_sql.sql").read_text(encoding="utf-8")

_THERE: Final = (Path(__file__).parent / "queries" / "tables_there.sql").read_text(encoding="utf-8")

_SPEAKING: Final = frozenset((
    "ALIAS_REQUIRED", "AMBIGUOUS_COLUMN_NAME", "AMBIGUOUS_IDENTIFIER", "ARGUMENT_OUT_OF_BOUND", "BAD_ARGUMENTS", "BAD_GET",
    "BAD_QUERY_PARAMETER", "BAD_TYPE_OF_FIELD", "CANNOT_COMPILE_REGEXP", "CANNOT_CONVERT_TYPE", "CANNOT_PARSE_BOOL",
    "CANNOT_PARSE_DATE", "CANNOT_PARSE_DATETIME", "CANNOT_PARSE_INPUT_ASSERTION_FAILED", "CANNOT_PARSE_NUMBER",
    "CANNOT_PARSE_QUOTED_STRING", "CANNOT_PARSE_TEXT", "DECIMAL_OVERFLOW", "EXPECTED_ALL_OR_DISTINCT", "ILLEGAL_AGGREGATION",
    "ILLEGAL_COLUMN", "ILLEGAL_DIVISION", "ILLEGAL_TYPE_OF_ARGUMENT", "INCORRECT_QUERY", "INVALID_JOIN_ON_EXPRESSION",
    "INVALID_LIMIT_EXPRESSION", "INVALID_WITH_FILL_EXPRESSION", "MULTIPLE_EXPRESSIONS_FOR_ALIAS", "NOT_AN_AGGREGATE",
    "NOT_IMPLEMENTED", "NO_COMMON_TYPE", "NUMBER_OF_ARGUMENTS_DOESNT_MATCH", "NUMBER_OF_COLUMNS_DOESNT_MATCH",
    "OFFSET_FETCH_WITHOUT_ORDER_BY", "PARAMETER_OUT_OF_BOUND", "SIZES_OF_ARRAYS_DONT_MATCH", "SYNTAX_ERROR",
    "TOO_FEW_ARGUMENTS_FOR_FUNCTION", "TOO_LARGE_ARRAY_SIZE", "TOO_LARGE_STRING_SIZE", "TOO_MANY_ARGUMENTS_FOR_FUNCTION",
    "TYPE_MISMATCH", "UNION_ALL_RESULT_STRUCTURES_MISMATCH", "UNKNOWN_ELEMENT_OF_ENUM", "UNKNOWN_FUNCTION",
    "UNKNOWN_IDENTIFIER", "UNKNOWN_TABLE", "UNKNOWN_TYPE", "UNSUPPORTED_METHOD", "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    "WITH_TIES_WITHOUT_ORDER_BY",
))  # fmt: skip
"""Errors of the engine that speak of the query and of rows that it may see, and may be told."""

_TOO_SLOW: Final = ("too_slow", "The query took too long.", "Ask for a shorter period (started_at).")
_TOO_BIG: Final = (
    "too_much_memory",
    "The query needs too much memory.",
    "Group by fewer values.",
)
_TOO_MANY: Final = ("too_many_rows", "The answer is too long.", "Aggregate, or add a LIMIT.")
_TOO_COMPLEX: Final = ("too_complex", "The query is too long or too deeply nested.", "Split it.")
_LIMITS: Final = {
    **dict.fromkeys(("TIMEOUT_EXCEEDED", "TOO_SLOW"), _TOO_SLOW),
    **dict.fromkeys(("MEMORY_LIMIT_EXCEEDED", "CANNOT_ALLOCATE_MEMORY", "SET_SIZE_LIMIT_EXCEEDED"), _TOO_BIG),
    **dict.fromkeys(("TOO_MANY_ROWS_OR_BYTES", "TOO_MANY_ROWS", "TOO_MANY_BYTES"), _TOO_MANY),
    **dict.fromkeys(
        ("TOO_SLOW_PARSING", "TOO_DEEP_RECURSION", "TOO_DEEP_AST", "TOO_BIG_AST", "TOO_DEEP_SUBQUERIES", "TOO_MANY_COLUMNS"),
        _TOO_COMPLEX,
    ),
}


class QueryTooExpensive(BadQuery):
    """The query needs more time, memory or rows than it may have."""


class Column(NamedTuple):
    """A column of a result; `type` is ClickHouse's."""

    name: str
    type: str


class Result(NamedTuple):
    """Rows as JSON has them: decimals are text, whole numbers numbers, times ISO 8601 text in UTC, NULL and NaN None."""

    columns: list[Column]
    rows: list[list[Any]]
    elapsed_ms: float


class Checked(NamedTuple):
    """A query that may run: the text that the engine wrote anew from the tree that was checked, and its parameters' values."""

    text: str
    values: Mapping[str, Any]


class Read(NamedTuple):
    """A query as the engine read it, unchecked. tables: what the connection's current `database` holds."""

    text: str
    tree: dict[str, Any]
    database: str
    tables: list[str]


def run(reader: "Client", query: str, params: Mapping[str, Any] | None) -> Result:
    """Answer one query of a user; `params` bind to its `{name:Type}`. Raises BadQuery, QueryTooExpensive.

    reader: a connection of `Store.reader(tenant, READER_SETTINGS)`, whose current database holds `charges`.
    """
    return result(reader, checked(reader, query, params))


def checked(reader: "Client", query: str, params: Mapping[str, Any] | None) -> Checked:
    """What may run of a user's query. Raises BadQuery, QueryTooExpensive."""
    check_size(query)
    return allowed(reader, query, params)


def allowed(reader: "Client", query: str, params: Mapping[str, Any] | None) -> Checked:
    """What may run of a query that isn't too long to be read. Raises BadQuery, QueryTooExpensive."""
    try:
        found = read(reader, query)
        named = check(found.tree, found.database, found.tables)
    except RecursionError:
        raise QueryTooExpensive(*_TOO_COMPLEX) from None
    if "aggregatefunction" in found.text.lower():
        # States that the engine didn't make itself can crash it.
        raise BadQuery("not_allowed", "A state of an aggregate function can't be written.", "Make it by a -State function.")
    # Only what the tree names is passed on: where it finds no parameter, the client would put values into the text by itself.
    return Checked(found.text, _bound(named, params or {}))


def read(reader: "Client", query: str) -> Read:
    """A query as the engine's parser has it; nothing of it runs. Raises BadQuery, QueryTooExpensive, RecursionError."""
    with parser(reader) as parsing:
        text, tree, database, tables = engine(parsing, _READ, {"query": query})["data"][0]
    if parsing is not reader:
        database, tables = engine(reader, _THERE, {})["data"][0]
    return Read(text, json.loads(tree), database, tables)


def result(reader: "Client", question: Checked, mark: str = "") -> Result:
    """The answer of a checked query. mark: what KILL QUERY finds it by. Raises BadQuery, QueryTooExpensive."""
    try:
        answer = engine(reader, _marked(question, mark), question.values)
    except RecursionError:
        raise QueryTooExpensive(*_TOO_COMPLEX) from None
    columns = [Column(column["name"], column["type"]) for column in answer["meta"]]
    return Result(columns, answer["data"], answer["statistics"]["elapsed"] * 1e3)


def written(reader: "Client", question: Checked, form: str, mark: str = "") -> bytes:
    """The answer of a checked query as the engine writes it. form: one of its output formats. Raises BadQuery, QueryTooExpensive."""
    return _written(reader, _marked(question, mark), question.values, form)


def _marked(question: Checked, mark: str) -> str:
    return f"/* {mark} */ {question.text}" if mark else question.text


def engine(reader: "Client", statement: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine answers to a statement that needs no check, in its format JSONCompact. Raises BadQuery, QueryTooExpensive."""
    answer: dict[str, Any] = json.loads(_written(reader, statement, values, "JSONCompact").decode(errors="replace"))
    return answer


def _written(reader: "Client", statement: str, values: Mapping[str, Any], form: str) -> bytes:
    try:
        return reader.raw_query(statement, dict(values), fmt=form)
    except ClickHouseError as error:
        # Embedded, what a failed query had already written is put before the next answer of the connection: let that be this one.
        reader.raw_query("SELECT 1")
        raise _refusal(str(error)) from None


def check_size(query: str) -> None:
    """What the engine's parser itself takes too long over, before it sees it. Raises BadQuery, QueryTooExpensive."""
    try:
        size = len(query.encode())
    except UnicodeEncodeError:
        raise BadQuery("syntax_error", "The query isn't valid Unicode.") from None
    if not query.strip():
        raise BadQuery("syntax_error", "The query is empty.", "Send one SELECT over `charges`.")
    depth = deepest = 0
    for character in query:
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        deepest = max(deepest, depth)
    # `x BETWEEN a AND b` holds x twice: nested ones double with each level, in memory that no limit counts.
    written = size << min(len(re.findall("between", query, re.IGNORECASE)), 64)
    if size > MAX_QUERY_BYTES or deepest > MAX_NESTING:
        raise QueryTooExpensive(*_TOO_COMPLEX)
    if written > _MAX_WRITTEN_BYTES:
        raise QueryTooExpensive("too_complex", "The query has too many BETWEENs for its length.", "Write x >= a AND x <= b.")


def _bound(named: frozenset[str], params: Mapping[str, Any]) -> dict[str, Any]:
    if missing := named - params.keys():
        raise BadQuery("bad_parameter", f"There is no value for {', '.join(sorted(missing))}.", "Name it in `params`.")
    if unused := params.keys() - named:
        raise BadQuery("bad_parameter", f"The query has no {', '.join(sorted(unused))}.", "Its place is {name:Type}.")
    return {name: _value(params[name]) for name in named}


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadQuery("bad_parameter", "A value isn't valid Unicode.") from None
    return value


def _refusal(message: str) -> BadQuery:
    """What a user is told of an error of the engine: not more than it says of the query."""
    name = re.search(r"\(([A-Z][A-Z0-9_]+)\)\s*$", message)
    known = name[1] if name else "UNKNOWN"
    if "parseQueryToJSON" in message.partition("DB::Exception: ")[2].partition("In scope")[0]:
        return BadQuery("not_a_select", "Only SELECT can be asked.", ONLY_SELECT)
    if "Max query size exceeded" in message:
        return QueryTooExpensive(*_TOO_COMPLEX)
    if known in _LIMITS:
        return QueryTooExpensive(*_LIMITS[known])
    if known not in _SPEAKING:
        return BadQuery("query_failed", f"The engine couldn't run the query ({known}).", "Simplify it until it runs.")
    told = _NOISE.split(message.removeprefix("Code: ").partition("DB::Exception: ")[2])[0].strip(" .:\n")
    return BadQuery(known.lower(), f"{told[:_MESSAGE]}.")
