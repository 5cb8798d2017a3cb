"""Statements as clients of ClickHouse send them: SELECT with FORMAT at its end, and the SHOW, DESCRIBE and EXISTS that list tables."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tallystick.attribution.catalog import Catalog, told
from tallystick.attribution.parsing import parser
from tallystick.attribution.user_sql import (
    READER_SETTINGS,
    BadQuery,
    Checked,
    Column,
    QueryTooExpensive,
    allowed,
    check_size,
    engine,
    read,
    result,
)
from tallystick.attribution.user_sql_check import VIEWS

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LIMITS: Final[Mapping[str, Any]] = {
    name: value for name, value in READER_SETTINGS.items() if not name.startswith(("date_time_output", "output_format"))
}
"""Settings of a connection for these statements: values look as ClickHouse writes them, not as /v1/sql does."""

_FORMATS: Final = """
    Arrow ArrowStream CSV CSVWithNames CSVWithNamesAndTypes JSON JSONColumns JSONColumnsWithMetadata JSONCompact JSONCompactColumns
    JSONCompactEachRow JSONCompactEachRowWithNames JSONCompactEachRowWithNamesAndTypes JSONCompactStrings JSONCompactStringsEachRow
    JSONCompactStringsEachRowWithNames JSONCompactStringsEachRowWithNamesAndTypes JSONEachRow JSONLines JSONObjectEachRow JSONStrings
    JSONStringsEachRow Markdown MsgPack NDJSON Native Null ORC Parquet Pretty PrettyCompact PrettyCompactMonoBlock PrettyJSONEachRow
    PrettyNoEscapes PrettySpace RowBinary RowBinaryWithNames RowBinaryWithNamesAndTypes TSKV TSV TSVRaw TSVWithNames TSVWithNamesAndTypes
    TabSeparated TabSeparatedRaw TabSeparatedRawWithNames TabSeparatedRawWithNamesAndTypes TabSeparatedWithNames
    TabSeparatedWithNamesAndTypes Values Vertical XML
"""
FORMATS: Final = frozenset(_FORMATS.split())
"""Output formats that need no schema, file or setting."""

_QUERIES: Final = Path(__file__).parent / "queries"
_FORMATTED: Final = (_QUERIES / "formatted_query.sql").read_text(encoding="utf-8")
_OF_TREE: Final = (_QUERIES / "query_of_tree.sql").read_text(encoding="utf-8")
_SERVER: Final = (_QUERIES / "server.sql").read_text(encoding="utf-8")

_NAME: Final = r"(?:`?(?P<database>\w+)`?\.)?`?(?P<table>\w+)`?"
_LIKE: Final = r"(?: (?P<how>I?LIKE) '(?P<pattern>(?:[^'\\]|\\.)*)')?"
_FORMAT: Final = r"(?: FORMAT (?P<format>\w+))?"


class AsSent:
    """A parameter's value in the form in which the HTTP interface takes it, which is the engine's own: it isn't escaped again."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class Statement(NamedTuple):
    """What may run. form: the FORMAT that it names; None if it names none."""

    question: Checked
    form: str | None


def catalog(client: "Client", database: str, settings: Mapping[str, str]) -> tuple[Catalog, Mapping[str, int]]:
    """What clients are told of this server, and its errors' codes by name. client: one with all rights."""
    version, revision, timezone, errors = client.query(_SERVER).result_rows[0]
    views = {
        view: [Column(row[0], row[1]) for row in client.query(f"DESCRIBE TABLE {view}").result_rows] for view in sorted(VIEWS)
    }
    return Catalog(database, str(version), int(revision), str(timezone), views, settings), dict(errors)


def prepared(reader: "Client", known: Catalog, query: str, params: Mapping[str, str]) -> Statement:
    """What may run of a statement. params: as `param_NAME` has them. Raises BadQuery, QueryTooExpensive.

    reader: as `user_sql.run` takes it, with LIMITS.
    """
    check_size(query)
    text = _by_the_parser(reader, _FORMATTED, {"query": query}) if _LISTING.match(query) else query
    for pattern, answer in _STATEMENTS:
        if found := pattern.fullmatch(text):
            return answer(reader, known, found, params)
    return _select(reader, known, query, params)


def _select(reader: "Client", known: Catalog, query: str, params: Mapping[str, str]) -> Statement:
    try:
        found = read(reader, query)
    except RecursionError:
        raise QueryTooExpensive("too_complex", "The query is too deeply nested.", "Split it.") from None
    form = found.tree.pop("format_ast", None)
    changed = told(found.tree, known)
    if form is not None or changed:
        query = _by_the_parser(reader, _OF_TREE, {"tree": json.dumps(found.tree)})
    values = {name: AsSent(value) for name, value in params.items()}
    return Statement(allowed(reader, query, values), None if form is None else str(form["name"]))


def described(reader: "Client", question: Checked, mark: str = "") -> list[Column]:
    """Names and types of what a checked query answers. Raises BadQuery, QueryTooExpensive."""
    rows = result(reader, Checked(f"DESCRIBE TABLE ({question.text})", question.values), mark).rows
    return [Column(row[0], row[1]) for row in rows]


def _databases(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    return _listed(reader, known, _DATABASES, found, _pattern(found))


def _tables(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    _check_database(known, found)
    return _listed(reader, known, _TABLES, found, _pattern(found))


_LIKE_VALUE: Final = "{any_case:UInt8} ? name ILIKE {value:String} : name LIKE {value:String} ORDER BY name"
_DATABASES: Final = f"SELECT name FROM system.databases WHERE {_LIKE_VALUE}"  # noqa: S608
_TABLES: Final = f"SELECT name FROM system.tables WHERE {_LIKE_VALUE}"  # noqa: S608


def _pattern(found: re.Match[str]) -> dict[str, str]:
    return {"any_case": str(int(found["how"] == "ILIKE")), "value": found["pattern"] if found["how"] else "%"}


def _described_view(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    return _listed(reader, known, _COLUMNS, found, {"value": _view(known, found)})


def _described_select(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    inner = _select(reader, known, found["select"], params).question
    return Statement(Checked(f"DESCRIBE TABLE ({inner.text})", inner.values), found["format"])


def _created(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    query = "SELECT create_table_query AS statement FROM system.tables WHERE name = {value:String}"
    return _listed(reader, known, query, found, {"value": _view(known, found)})


def _exists(reader: "Client", known: Catalog, found: re.Match[str], params: Mapping[str, str]) -> Statement:
    there = found["table"] in known.views and found["database"] in (None, known.database)
    return _listed(reader, known, "SELECT {value:UInt8} AS result", found, {"value": str(int(there))})


_COLUMNS: Final = (
    "SELECT name, type, default_kind AS default_type, default_expression, comment, '' AS codec_expression, '' AS ttl_expression"
    " FROM system.columns WHERE table = {value:String} ORDER BY position"
)
_LISTING: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:SHOW|DESC|DESCRIBE|EXISTS)\b", re.IGNORECASE | re.DOTALL)
_STATEMENTS: Final[tuple[tuple[re.Pattern[str], Callable[..., Statement]], ...]] = tuple(
    (re.compile(pattern + _FORMAT), answer)
    for pattern, answer in (
        (rf"SHOW DATABASES{_LIKE}", _databases),
        (rf"SHOW TABLES(?: FROM `?(?P<database>\w+)`?)?{_LIKE}", _tables),
        (rf"DESCRIBE TABLE {_NAME}", _described_view),
        (r"DESCRIBE TABLE \((?P<select>.*)\)", _described_select),
        (rf"SHOW CREATE (?:TABLE|VIEW) {_NAME}", _created),
        (rf"EXISTS (?:TABLE|VIEW) {_NAME}", _exists),
    )
)
"""On the engine's own way to write them: what else may stand in such a statement is refused as no SELECT."""


def _listed(reader: "Client", known: Catalog, query: str, found: re.Match[str], values: Mapping[str, str]) -> Statement:
    return Statement(_select(reader, known, query, values).question, found["format"])


def _view(known: Catalog, found: re.Match[str]) -> str:
    _check_database(known, found)
    view: str = found["table"]
    if view not in known.views:
        raise BadQuery("no_such_table", f"There is no table {view}.", f"What can be asked: {', '.join(sorted(known.views))}.")
    return view


def _check_database(known: Catalog, found: re.Match[str]) -> None:
    if found["database"] not in (None, known.database):
        raise BadQuery("unknown_database", f"There is no database {found['database']}.", f"The database is {known.database}.")


def _by_the_parser(reader: "Client", statement: str, values: Mapping[str, str]) -> str:
    with parser(reader) as parsing:
        return str(engine(parsing, statement, values)["data"][0][0])
