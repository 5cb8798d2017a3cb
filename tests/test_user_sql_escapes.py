"""Ways out of the cage of a user's SQL: every line of sql_escapes.txt is refused before it runs, and no list of what is allowed leaks."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.user_sql import READER_SETTINGS, BadQuery, QueryTooExpensive, Result
from tallystick.attribution.user_sql_check import FUNCTIONS, VIEWS, check
from tallystick.ingest.store import Store

Ask = Callable[..., Result]

ESCAPES = (Path(__file__).parent / "sql_escapes.txt").read_text(encoding="utf-8").splitlines()
SECRET = "the-secret-of-a-file"

# Refused by the check, not by chance: an error of the engine while it runs would have another code.
BEFORE_IT_RUNS = {
    "not_a_select", "not_allowed", "no_such_table", "no_such_function", "name_taken", "lambda_expected", "type_expected", "bad_parameter",
}  # fmt: skip
# What isn't SQL at all is refused by the parser.
NO_SQL = {
    "execute immediate 'select 1'", "select 1; select file('/etc/passwd')", "; select file('/etc/passwd')",
    "select * from (select 1 into outfile './tmp-o5.csv')",
}  # fmt: skip


@pytest.mark.parametrize("tenant", ["acme", "globex", None])
@pytest.mark.parametrize("part", range(8))
def test_every_escape_is_refused(
    ask: Ask, tenant: str | None, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for query in ESCAPES[part::8]:
        with pytest.raises(BadQuery) as refused:
            ask(tenant, query)
        assert not isinstance(refused.value, QueryTooExpensive), query
        assert refused.value.code in ({"syntax_error"} if query in NO_SQL else BEFORE_IT_RUNS), (query, refused.value.message)
        assert "root:" not in refused.value.message + refused.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tenant", ["acme", None])
@pytest.mark.parametrize("name", ["ledger", "prices", "migrations"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM {}",
        "SELECT * FROM tallystick.{}",
        "SELECT 1 IN {}",
        "WITH {} AS t SELECT 1 IN t",
        "SELECT t.* FROM (SELECT * FROM {}) AS t",
        "SELECT (WITH {} AS (SELECT 1) SELECT 1), count() FROM {}",
        "SELECT tallystick.{}.tenant FROM charges",
        "WITH `tallystick.{}` AS (SELECT 1) SELECT * FROM `tallystick.{}`",
        "SELECT 1 IN `tallystick.{}`",
    ],
)
def test_no_other_table_can_be_named(ask: Ask, tenant: str | None, name: str, query: str) -> None:
    with pytest.raises(BadQuery) as refused:
        ask(tenant, query.replace("{}", name))
    assert refused.value.code in {"no_such_table", "name_taken"}


@pytest.mark.parametrize(
    "query", ["SELECT {t:Identifier} FROM charges", "SELECT c.{t:Identifier} FROM charges AS c", "SELECT 1 IN {t:Identifier}"]
)
@pytest.mark.parametrize("value", ["tenant", "ledger", "system.one"])
def test_no_name_comes_from_outside(ask: Ask, query: str, value: str) -> None:
    for asked in (query, "SELECT * FROM {t:Identifier}", "SELECT * FROM tallystick.{t:Identifier}"):
        with pytest.raises(BadQuery, match="A parameter can't be a name"):
            ask("acme", asked, {"t": value})


def test_tables_that_come_later_are_refused_too(ask: Ask, chdb_client: Client) -> None:
    chdb_client.command("CREATE TABLE later (a UInt8) ENGINE = Memory")
    try:
        with pytest.raises(BadQuery, match="There is no table later"):
            ask(None, "SELECT * FROM later")
        with pytest.raises(BadQuery, match="later can't be the name"):
            ask(None, "WITH later AS (SELECT 1) SELECT 1")
    finally:
        chdb_client.command("DROP TABLE later")
    assert ask(None, "WITH later AS (SELECT 1) SELECT * FROM later").rows == [[1]]


def test_the_check_wants_to_know_the_database() -> None:
    with pytest.raises(ValueError, match="has no charges"):
        check({"type": "SelectWithUnionQuery"}, "tallystick", [])


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "DropQuery"},
        {"type": "SelectWithUnionQuery", "list_of_selects": {"type": "ExpressionList", "children": [{"type": "NewQuery"}]}},
        {"type": "SelectWithUnionQuery", "list_of_selects": {"type": "ExpressionList", "children": [{"no": "type"}]}},
        {"type": "SelectWithUnionQuery", "new_clause": {"type": "Literal"}},
        {"type": "SelectWithUnionQuery", "new_clause": True},
        {"type": "SelectWithUnionQuery", "list_of_selects": {"type": "SelectQuery", "write_to": "x"}},
    ],
)
def test_what_the_check_does_not_know_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(BadQuery):
        check(tree, "tallystick", VIEWS)


DANGEROUS = re.compile(
    r"^(file|url|s3|gcs|hdfs|azure|remote|cluster|mysql|postgresql|mongo|redis|sqlite|odbc|jdbc|python|executable|dict|dictionary|join(Get)?"
    r"|region|ai[A-Z]|AI|merge$|mergeTree|loop|view|input|infile|null$|eval|evalML|catboost|naiveBayes|stochastic|hierarchical|sleep|throw|aggThrow|flame"
    r"|get(?!SizeOfEnumType$)|server|host|FQDN|tcp|uptime|version|revision|build|current(?!_date$|_timestamp$)|session|initial|query[^S]|connection|auth|user"
    r"|enabled|default|system|filesystem|zookeeper|transaction|address|demangle|log[A-Z]|trace|tid$|show|partition|shard|block|has(Column|Thread)"
    r"|format(Query|Row)|parseQuery|fuzz|generateRandom|generateSerial|random[A-Z]|structureTo|dump|pg_?|schema|database|global(Variable)|obfuscate|lemm|stem"
    r"|synonyms|detect|__|_CAST|encrypt|decrypt|aes|HMAC|tryDecrypt|timeSeries|MVT|h3|s2|geo|polygon|read(WK|Wk)|multi(Match|Fuzzy)|edit|damerau|jaro|levenshtein"
    r"|initializeAggregation|arrayReduce|chdb|cluster|catalog|icebergHash|hive)"
)  # fmt: skip


def test_no_function_with_a_dangerous_name_is_allowed(chdb_client: Client) -> None:
    rows = chdb_client.query("SELECT name, alias_to, categories FROM system.functions").result_rows
    allowed = {str(name) for name, *_ in rows if FUNCTIONS.allows(str(name))}
    assert len(allowed) > 1_000
    assert sorted(name for name in allowed if DANGEROUS.match(name)) == []
    # The pattern would find them, were they allowed.
    assert {"file", "sleep", "getSetting", "dictGet", "joinGet", "currentUser", "hostName"} <= {
        str(n) for n, *_ in rows if DANGEROUS.match(str(n))
    }
    # Another name of a refused function is refused.
    assert sorted(str(name) for name, alias, _ in rows if alias and str(name) in allowed and str(alias) not in allowed) == []
    harmful = {"AI", "Dictionary", "Embedded Dictionary", "Encryption", "Introspection", "Machine Learning", "Internal"}
    kept = {"caseWithExpression"}
    assert sorted(str(name) for name, _, kind in rows if kind in harmful and str(name) in allowed - kept) == []


def test_the_lists_name_what_the_engine_has(chdb_client: Client) -> None:
    rows = chdb_client.query("SELECT lower(name), is_aggregate, ifNull(higher_order, 0) FROM system.functions").result_rows
    names = {str(name) for name, *_ in rows}
    tables = {str(row[0]) for row in chdb_client.query("SELECT lower(name) FROM system.table_functions").result_rows}
    assert FUNCTIONS.scalars | FUNCTIONS.higher_order <= names | {"lambda", "exists", "grouping", "try_cast"}
    assert FUNCTIONS.aggregates <= {str(name) for name, aggregate, _ in rows if aggregate}
    assert FUNCTIONS.tables <= tables
    assert FUNCTIONS.tables == {"numbers", "values", "sqlstandardvalues", "generateseries", "generate_series"}
    # A function that takes lambdas, and isn't known to, would take any function's name.
    assert {str(name) for name, _, higher in rows if higher} & FUNCTIONS.scalars == set()
    assert FUNCTIONS.higher_order <= {str(name) for name, _, higher in rows if higher}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("sum", True), ("SUM", True), ("sumIf", True), ("sumMap", True), ("quantilesTDigestOrNullIf", True), ("argMaxArgMax", True),
        ("countDistinctIf", True), ("If", True), ("fileIf", False), ("sleepState", False), ("State", False), ("aggThrowIf", False),
        ("sumIfx", False), ("", False), ("sum ", False), ("FILE", False), ("sumNull", False), ("lengthIf", False),
    ],
)  # fmt: skip
def test_combinators_belong_to_aggregates(name: str, allowed: bool) -> None:
    assert FUNCTIONS.allows(name) is allowed


def test_only_known_functions_take_the_name_of_another(chdb_store: Store, tmp_path: Path) -> None:
    # Asked without the check: the engine itself must not make a function of a name, but where a lambda belongs.
    (tmp_path / "secret").write_text(SECRET)
    calls = ("{}(file, ['PATH'])", "{}(['PATH'], file)", "{}(file, 'PATH')")
    takers = set()
    with chdb_store.reader("acme", READER_SETTINGS) as reader:
        for name in [*sorted(FUNCTIONS.scalars), "arrayMap"]:
            for call in calls:
                try:
                    answer = reader.raw_query("SELECT " + call.format(name).replace("PATH", str(tmp_path / "secret")), fmt="TSV")
                except ClickHouseError as error:
                    answer = str(error).encode()
                if SECRET.encode() in answer:
                    takers.add(name)
    assert takers == {"arrayMap"}
