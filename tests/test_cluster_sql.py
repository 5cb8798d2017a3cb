"""What migrations' plain SQL becomes on a server, on shards and with replicas; the last can't be run here, and is read by a real server's parser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse import ClickHouse

from tallystick.ingest.cluster import EMBEDDED, OF_ONE_HOST, SHARDED_BY, VIEWS_OF_SHARDS, Kind, Topology, distributed, placed
from tallystick.ingest.errors import StoreMisconfigured
from tallystick.ingest.migrate import VIEWS, migrations
from tallystick.ingest.server_store import Address, ServerStore, read_address
from tallystick.ingest.store import read_sql

SERVER = Topology(Kind.SERVER, ("a:8123",))
SHARDS = Topology(Kind.CLUSTER, ("a:8123", "b:8123"), "tally")
REPLICAS = SHARDS._replace(replicated=True)

STATEMENTS = [*(statement for migration in migrations() for statement in migration.statements), *map(read_sql, VIEWS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse") / "data") as running:
        yield running


def parsed(server: ClickHouse, statement: str) -> str:
    answer = server.ask(f"EXPLAIN AST {statement}")
    assert not answer.startswith("Code:"), f"{answer}\n{statement}"
    return answer


@pytest.mark.parametrize("to", [SERVER, SHARDS, REPLICAS], ids=["server", "shards", "replicas"])
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.split("\n")[0][:60])
def test_every_statement_of_the_schema_has_its_form(server: ClickHouse, statement: str, to: Topology) -> None:
    text = placed(statement, to)
    tree = parsed(server, text)
    where = re.match(r"(?:CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE) (\w+)\.(\w+)", text)
    assert where
    assert where[1] == ("tallystick" if where[2] in {*VIEWS, *OF_ONE_HOST} - {*VIEWS_OF_SHARDS} else to.rows)
    assert text.count("ON CLUSTER 'tally'") == to.replicated
    engines = set(re.findall(r"Function (\w*MergeTree)", tree))
    assert all(engine.startswith("Replicated") == to.replicated for engine in engines)


def test_embedded_a_statement_stays_as_it_is() -> None:
    assert all(placed(statement, EMBEDDED) == statement for statement in STATEMENTS)


def test_every_table_of_the_schema_has_a_place() -> None:
    """A new table: is it spread over the shards (by what?), on the first, or each host's own?"""
    made = {name for statement in STATEMENTS for name in re.findall(r"^CREATE TABLE IF NOT EXISTS (\w+)", statement)}
    assert made | {"migrations"} == SHARDED_BY.keys() | OF_ONE_HOST


@pytest.mark.parametrize("to", [SHARDS, REPLICAS], ids=["shards", "replicas"])
@pytest.mark.parametrize("table", SHARDED_BY)
def test_a_table_stands_for_its_shards(server: ClickHouse, table: str, to: Topology) -> None:
    assert "Function Distributed" in parsed(server, distributed(table, to))


@pytest.mark.parametrize(
    ("statement", "to", "expected"),
    [
        ("ALTER TABLE prices ADD COLUMN x Int8", SERVER, "ALTER TABLE tallystick.prices ADD COLUMN x Int8"),
        ("ALTER TABLE prices ADD COLUMN x Int8", SHARDS, "ALTER TABLE tallystick_shard.prices ADD COLUMN x Int8"),
        ("ALTER TABLE turns REMOVE TTL", SHARDS, "ALTER TABLE tallystick.turns REMOVE TTL"),
        (
            "CREATE TABLE IF NOT EXISTS prices\n(a Int8) ENGINE = MergeTree\nORDER BY a",
            REPLICAS,
            "CREATE TABLE IF NOT EXISTS tallystick_shard.prices ON CLUSTER 'tally'\n(a Int8) ENGINE = "
            "ReplicatedMergeTree('/clickhouse/tables/{shard}/tallystick_shard/prices', '{replica}')\nORDER BY a",
        ),
        (
            "CREATE TABLE IF NOT EXISTS x (at DateTime) ENGINE = ReplacingMergeTree(at) ORDER BY ()",
            REPLICAS,
            "CREATE TABLE IF NOT EXISTS tallystick_shard.x ON CLUSTER 'tally' (at DateTime) ENGINE = "
            "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/tallystick_shard/x', '{replica}', at) ORDER BY ()",
        ),
        ("CREATE TABLE IF NOT EXISTS turns (a Int8) ENGINE = Memory", REPLICAS,
         "CREATE TABLE IF NOT EXISTS tallystick.turns ON CLUSTER 'tally' (a Int8) ENGINE = Memory"),
    ],
)  # fmt: skip
def test_forms(statement: str, to: Topology, expected: str) -> None:
    assert placed(statement, to) == expected


@pytest.mark.parametrize(
    "statement", ["DROP TABLE ledger", "INSERT INTO prices SELECT 1", "RENAME TABLE a TO b", "CREATE TABLE ledger (a Int8)"]
)
def test_a_statement_of_another_kind_is_no_migration(statement: str) -> None:
    with pytest.raises(ValueError, match="no migration"):
        placed(statement, SHARDS)


def test_whoever_looks_finds_what_was_acknowledged() -> None:
    assert "distributed_foreground_insert" not in SERVER.settings
    assert SHARDS.settings["distributed_foreground_insert"] == 1
    assert SHARDS.settings["skip_unavailable_shards"] == 0
    replicas = REPLICAS.settings
    assert (replicas["insert_quorum"], replicas["insert_quorum_parallel"], replicas["select_sequential_consistency"]) == (
        "auto",
        0,
        1,
    )


def test_a_server_knows_every_setting(server: ClickHouse) -> None:
    assert server.ask("SELECT 1", "admin", **REPLICAS.settings) == "1"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("clickhouse://ana@db/tallystick", Address(False, "ana", ("db:8123",))),
        ("clickhouse://db", Address(False, "default", ("db:8123",))),
        ("clickhouses://ana@db:9443,db2/", Address(True, "ana", ("db:9443", "db2:8443"))),
        ("clickhouse://ana@[::1]:8124/tallystick", Address(False, "ana", ("[::1]:8124",))),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://db:8123", "no address"),
        ("clickhouse://", "no address"),
        ("clickhouse://ana@db/a/b", "no address"),
        ("clickhouse://ana@db?secure=1", "no address"),
        ("clickhouse://ana:geheim@db/tallystick", "password"),
        ("clickhouse://ana@db/default", "'default'"),
        ("clickhouse://ana@db,/tallystick", "host ''"),
        ("clickhouse://ana@db:99x", "host 'db:99x'"),
    ],
)
def test_what_is_no_address(url: str, said: str) -> None:
    with pytest.raises(StoreMisconfigured, match=re.escape(said)) as refused:
        read_address(url)
    assert refused.value.hint
    assert "geheim" not in f"{refused.value}{refused.value.hint}"


@pytest.mark.parametrize(
    ("url", "cluster", "replicated"),
    [("clickhouse://a,b", "", False), ("clickhouse://a", "", True), ("clickhouse://a,b", "a'b", False)],
)
def test_several_servers_need_their_name(url: str, cluster: str, replicated: bool) -> None:
    with pytest.raises(StoreMisconfigured, match="name"):
        ServerStore(url, cluster=cluster, replicated=replicated)


def test_the_users_of_a_server_are_all_caged() -> None:
    """No user reads a file or an address, and each that reads for tenants has the filter, on rows and on what stands for them."""
    text = (Path(__file__).parent.parent / "deploy" / "clickhouse" / "users.xml").read_text()
    grants = re.findall(r"GRANT (.*?) ON (.*?)<", text)
    assert grants
    assert not [
        grant
        for grant in grants
        if re.search(r"\b(FILE|URL|REMOTE|S3|ALL|KILL QUERY|INTROSPECTION|ACCESS MANAGEMENT)\b", " ".join(grant))
    ]
    for user in re.findall(r"<tallystick_(?:admin|api|alerts|reader)>.*?</tallystick_\w+>", text, re.DOTALL):
        assert user.count("<filter>") == 15
