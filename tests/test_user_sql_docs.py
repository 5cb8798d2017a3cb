"""docs/sql.md and docs/charges.md say what is so."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tallystick.attribution.clickhouse_sql import FORMATS
from tallystick.attribution.client_settings import IDLE, KEPT, LOWERED
from tallystick.attribution.meanings import ABOUT, MEANINGS
from tallystick.attribution.sql_formats import MEDIA_TYPES, Format
from tallystick.attribution.user_sql import MAX_NESTING, MAX_QUERY_BYTES, READER_SETTINGS, BadQuery, Result
from tallystick.attribution.user_sql_check import FUNCTIONS, VIEWS
from tallystick.data_dictionary import markdown

Ask = Callable[..., Result]
DOCS = Path(__file__).parent.parent / "docs"
SQL = (DOCS / "sql.md").read_text(encoding="utf-8")


def test_the_dictionary_is_up_to_date(chdb_client: Client) -> None:
    columns = {
        view: [(str(row[0]), str(row[1])) for row in chdb_client.query(f"DESCRIBE {view}").result_rows] for view in MEANINGS
    }
    assert (DOCS / "charges.md").read_text(encoding="utf-8") == markdown(columns), "run `make docs`"
    assert set(MEANINGS) == set(ABOUT) == VIEWS
    for view, there in columns.items():
        with pytest.raises(KeyError, match="novel"):
            markdown({**columns, view: [*there, ("novel", "String")]})
        with pytest.raises(KeyError):
            markdown({**columns, view: there[1:]})


def test_formats_and_settings_are_listed() -> None:
    for name in [*FORMATS, *KEPT, *LOWERED, *Format, *MEDIA_TYPES.values()]:
        assert f"`{name}`" in SQL, name
    assert not KEPT & set(LOWERED)
    assert not IDLE & (KEPT | set(LOWERED))


def test_limits_are_as_told() -> None:
    told = dict(re.findall(r"^\| (\w[\w ]+?) \| ([\d,]+)[\w ]* \|$", SQL, re.MULTILINE))
    mega, giga = 1_000_000, 1_000_000_000
    assert {name: int(value.replace(",", "")) for name, value in told.items()} == {
        "time": READER_SETTINGS["max_execution_time"],
        "rows of an answer": READER_SETTINGS["max_result_rows"],
        "bytes of an answer": READER_SETTINGS["max_result_bytes"] // mega,
        "memory": READER_SETTINGS["max_memory_usage"] // mega,
        "disk for sorting and grouping": READER_SETTINGS["max_temporary_data_on_disk_size_for_query"] // giga,
        "length of a query": MAX_QUERY_BYTES,
        "nesting of brackets": MAX_NESTING,
    }
    assert 1_250 <= len(FUNCTIONS.scalars | FUNCTIONS.higher_order | FUNCTIONS.aggregates) <= 1_400


@pytest.mark.parametrize(
    "code",
    sorted(
        set(re.findall(r"`([a-z_]+)`", SQL.partition("## Errors")[2].partition("`not_acceptable`")[0]))
        - {"query_failed", "same_name"}
    ),
)
def test_errors_in_the_table_occur(ask: Ask, code: str) -> None:
    causes = {
        "syntax_error": "SELEC 1",
        "not_a_select": "SHOW TABLES",
        "not_allowed": "SELECT 1 FORMAT CSV",
        "no_such_table": "SELECT * FROM ledger",
        "no_such_function": "SELECT hostName()",
        "name_taken": "WITH ledger AS (SELECT 1) SELECT 1",
        "lambda_expected": "SELECT arrayMap(upper, ['a'])",
        "type_expected": "SELECT CAST(1, concat('Str', 'ing'))",
        "bad_parameter": "SELECT {p:String}",
        "too_slow": "SELECT count() FROM numbers(1000000000000)",
        "too_much_memory": "SELECT length(arrayMap(x -> x * 2, range(400000000)))",
        "too_many_rows": "SELECT * FROM numbers(100001)",
        "too_complex": "SELECT " + "(" * 300,
        "unknown_identifier": "SELECT nothing",
        "not_an_aggregate": "SELECT calls, sum(calls) FROM charges",
        "type_mismatch": "SELECT 1 IN ('never')",
        "illegal_division": "SELECT intDiv(1, 0)",
    }
    with pytest.raises(BadQuery) as refused:
        ask("acme", causes[code], max_execution_time=1)
    assert refused.value.code == code


def test_what_the_engine_fails_at_is_not_told(ask: Ask) -> None:
    with pytest.raises(BadQuery) as refused:
        ask("acme", "SELECT convertCharset('a', 'none', 'such')")
    assert (refused.value.code, refused.value.message) == (
        "query_failed",
        "The engine couldn't run the query (CANNOT_CREATE_CHARSET_CONVERTER).",
    )
