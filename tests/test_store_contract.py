"""What every store promises: the embedded engine, one server, two shards. What is asked of it is the same SQL."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.cluster import Kind
from tallystick.ingest.migrate import VIEWS, migrate, migrations, require_schema
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import Store, error_name, scalar

CALLS = 400
TENANTS = ("contract-a", "contract-b")


class Opened(NamedTuple):
    """A store with rights to everything, and one as the API has it; embedded it is the same."""

    store: Store
    api: Store


@pytest.fixture(scope="module", params=["embedded", "server", "shards"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """With `CALLS` calls of each of `TENANTS`, and an outcome each."""
    if request.param == "embedded":
        store = cast(Store, request.getfixturevalue("chdb_store"))
        fill(store)
        yield Opened(store, store)
        return
    data = tmp_path_factory.mktemp(request.param)
    servers = ClickHouse(data / "one") if request.param == "server" else ClickHouseCluster(data)
    cluster = "" if request.param == "server" else CLUSTER
    with servers as running:
        store = ServerStore(running.url("admin"), running.password, cluster=cluster)
        migrate(store, 0)
        fill(store)
        yield Opened(store, ServerStore(running.url("api"), running.password, cluster=cluster))


def fill(store: Store) -> None:
    for tenant in TENANTS:
        store.client().command(
            "INSERT INTO ledger (entry, calls, tenant, customer, status, usage_source, started_at, trace_id, span_id, input_tokens, cost_usd) "
            "SELECT 'call', 1, {tenant:String}, toString(number % 7), 'ok', 'provider', toDateTime64('2026-10-01', 9, 'UTC') + number,"
            " MD5(concat({tenant:String}, toString(intDiv(number, 4)))), unhex(leftPad(hex(number), 16, '0')), number, toDecimal64(number, 12) / 1000 "
            f"FROM numbers({CALLS})",
            parameters={"tenant": tenant},
        )
        store.client().command(
            "INSERT INTO reported_outcomes (tenant, id, at, outcome, success, entered_at) VALUES"
            " ({tenant:String}, 'contract', '2026-10-01 00:00:00', 'resolved', 1, '2026-10-01 00:00:00')",
            parameters={"tenant": tenant},
        )


def ours(query: str) -> str:
    return query.replace("{ours}", f"tenant IN {TENANTS}")


def test_the_schema_is_there_once(opened: Opened) -> None:
    store = opened.store
    before = store.client().query("SHOW TABLES").result_rows
    assert migrate(store, None) == []
    assert store.client().query("SHOW TABLES").result_rows == before
    assert {name for (name,) in before} >= {"ledger", "prices", "turns", *VIEWS}
    assert scalar(store.client(), "SELECT count() FROM migrations") == len(migrations())
    require_schema(store)
    require_schema(opened.api)


def test_what_was_written_is_read(opened: Opened) -> None:
    query = ours("SELECT count(), sum(calls), sum(input_tokens), sum(cost_usd) FROM charges WHERE {ours}")
    tokens = sum(range(CALLS))
    expected = (2 * CALLS, 2 * CALLS, 2 * tokens, Decimal(2 * tokens) / 1000)
    for store in opened:
        assert tuple(store.client().query(query).result_rows[0]) == expected
    query = ours("SELECT tenant, customer, sum(calls) FROM charges WHERE {ours} GROUP BY ALL ORDER BY ALL")
    assert sum(row[2] for row in opened.store.client().query(query).result_rows) == 2 * CALLS


def test_a_trace_stands_in_one_place(opened: Opened) -> None:
    store = opened.store
    here = f"SELECT DISTINCT tenant, hex(trace_id) FROM {store.dialect.rows}.ledger WHERE {ours('{ours}')}"
    traces = [host.query(here).result_rows for host in store.each_host()]
    assert all(traces), "every shard has some"
    assert sum(map(len, traces)) == len({tuple(trace) for found in traces for trace in found}) == 2 * CALLS // 4


def test_what_is_told_again_replaces_what_was_told(opened: Opened) -> None:
    client = opened.api.client()
    for second, revenue in ((2, "5"), (1, "7")):
        client.command(
            "INSERT INTO reported_outcomes (tenant, id, at, outcome, success, revenue_usd, entered_at) VALUES "
            f"('contract-a', 'again', '2026-10-01 00:00:00', 'paid', 1, {revenue}, '2026-10-01 00:00:0{second}')"
        )
    found = client.query("SELECT revenue_usd FROM outcomes WHERE tenant = 'contract-a' AND id = 'again'").result_rows
    assert [tuple(row) for row in found] == [(Decimal(5),)]


def test_what_is_small_is_found_from_everywhere(opened: Opened) -> None:
    client = opened.api.client()
    client.command(
        "INSERT INTO prices (book, provider, request_model, valid_from) VALUES ('contract', 'openai', 'm', '2026-01-01 00:00:00')"
    )
    client.command(
        "INSERT INTO corrections (id, state, kind, at, detail) VALUES ('contract', 'made', 'void', '2026-10-01 00:00:00', '{}')"
    )
    assert scalar(client, "SELECT count() FROM prices WHERE book = 'contract'") == 1
    assert scalar(client, "SELECT count() FROM corrections FINAL WHERE id = 'contract'") == 1
    joined = "SELECT count() FROM ledger JOIN (SELECT book FROM prices WHERE book = 'contract') AS p ON 1 = 1 WHERE {ours}"
    assert scalar(client, ours(joined)) == 2 * CALLS


def test_a_batch_is_looked_up_in_the_ledger(opened: Opened) -> None:
    """A session's own tables and the ledger's, in both directions."""
    client = opened.store.client()
    client.command("CREATE TEMPORARY TABLE looked_up (tenant String, trace_id FixedString(16)) ENGINE = Memory")
    client.command(ours("INSERT INTO looked_up SELECT DISTINCT tenant, trace_id FROM ledger WHERE {ours} LIMIT 40"))
    within = "SELECT count() FROM ledger PREWHERE tenant IN ('contract-a', 'contract-b') WHERE (tenant, trace_id) IN (SELECT tenant, trace_id FROM looked_up)"
    assert scalar(client, within) == 160
    new = "SELECT count() FROM looked_up WHERE (tenant, trace_id) NOT IN (SELECT tenant, trace_id FROM ledger WHERE span_id != unhex('0000000000000000'))"
    assert scalar(client, new) == 0
    client.command("DROP TEMPORARY TABLE looked_up")


def test_whoever_has_enough_of_an_answer_harms_nobody(opened: Opened) -> None:
    """Servers reset connections to each other then, again and again."""
    for _ in range(60):
        found = opened.api.client().query("SELECT DISTINCT tenant, trace_id FROM ledger LIMIT 40").result_rows
        assert len(found) == 40


def asked(
    store: Store, query: str, tenant: str | None = "contract-a", limits: Mapping[str, int] | None = None
) -> list[tuple[Any, ...]]:
    with store.reader(tenant, {**READER_SETTINGS, **(limits or {})}) as reader:
        return [tuple(row) for row in reader.query(query).result_rows]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT tenant FROM charges",
        "SELECT DISTINCT tenant FROM ledger",
        "SELECT DISTINCT tenant FROM outcomes WHERE id = 'contract'",
        "SELECT DISTINCT tenant FROM reported_outcomes",
        "SELECT DISTINCT tenant FROM {rows}.ledger",
        "SELECT DISTINCT tenant FROM (SELECT tenant FROM ledger UNION ALL SELECT tenant FROM {rows}.reported_outcomes)",
        "SELECT DISTINCT a.tenant FROM ledger AS a JOIN ledger AS b ON a.span_id = b.span_id WHERE b.tenant != ''",
        "SELECT DISTINCT b.tenant FROM (SELECT 1 AS x) AS a CROSS JOIN ledger AS b",
        "SELECT tenant FROM ledger WHERE tenant = 'contract-a' OR 1 ORDER BY tenant DESC LIMIT 1",
        "SELECT any(tenant) FROM charges HAVING uniqExact(tenant) = 1",
        "SELECT * FROM (SELECT DISTINCT tenant FROM charges SETTINGS log_comment = '') AS t",
        "WITH other AS (SELECT tenant FROM ledger) SELECT DISTINCT tenant FROM other WHERE tenant IN (SELECT tenant FROM other)",
    ],
)
def test_a_reader_sees_its_tenant_s_rows(opened: Opened, query: str) -> None:
    query = query.replace("{rows}", opened.api.dialect.rows)
    assert set(asked(opened.api, query)) == {("contract-a",)}
    assert set(asked(opened.api, query, "nobody")) <= {("",)} or "HAVING" in query


def test_merge_shows_nothing_of_others(opened: Opened) -> None:
    for pattern in ("ledger", "charges", ".*"):
        try:
            found = asked(opened.api, f"SELECT DISTINCT tenant FROM merge(REGEXP('tallystick.*'), '^{pattern}$')")
        except ClickHouseError:
            continue
        # Some tables know no tenant.
        assert set(found) <= {("contract-a",), ("",)}


def test_a_reader_of_everybody_s_sees_all(opened: Opened) -> None:
    assert set(asked(opened.api, ours("SELECT DISTINCT tenant FROM charges WHERE {ours}"), None)) == {
        (tenant,) for tenant in TENANTS
    }


def test_readers_don_t_mix(opened: Opened) -> None:
    """One after the other and inside of each other, whatever the others asked."""
    with opened.api.reader("contract-a", READER_SETTINGS) as one, opened.api.reader("contract-b", READER_SETTINGS) as other:
        for _ in range(3):
            assert one.query("SELECT DISTINCT tenant FROM charges").result_rows[0][0] == "contract-a"
            assert other.query("SELECT DISTINCT tenant FROM charges").result_rows[0][0] == "contract-b"
            with pytest.raises(ClickHouseError):
                one.query("SELECT nothing FROM charges")


def test_a_tenant_s_name_is_a_value(opened: Opened) -> None:
    for name in ("it's", "a\\b", "a\tb", "ü", "contract-a&readonly=0", "tenant:contract-a", "", "' OR 1 --"):
        assert asked(opened.api, "SELECT count() FROM charges", name) == [(0,)], name


ESCAPES = [
    line
    for line in (Path(__file__).parent / "sql_escapes.txt").read_text(encoding="utf-8").splitlines()
    # The engine's own index knows no row filter: only the check of users' queries keeps them from it.
    if "mergetree" not in line.lower()
]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger (tenant, started_at) VALUES ('contract-a', now64(9))",
        "INSERT INTO {rows}.prices (book) VALUES ('x')",
        "ALTER TABLE {rows}.ledger DELETE WHERE 1",
        "TRUNCATE TABLE {rows}.ledger",
        "DROP TABLE {rows}.ledger",
        "CREATE TABLE tallystick.mine (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE mine (a Int8)",
        "CREATE VIEW tallystick.mine AS SELECT 1",
        "SET log_comment = 'tenant:contract-b'",
        "SET readonly = 0",
        "SELECT 1 SETTINGS log_comment = ''",
        "SELECT count() FROM ledger SETTINGS max_execution_time = 0",
        "SELECT * FROM remote('127.0.0.1', 'tallystick', 'ledger')",
        "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a String')",
        "SELECT * FROM s3('http://127.0.0.1:9/b/x', 'CSV', 'a String')",
        "SELECT * FROM file('/etc/passwd', 'CSV', 'a String')",
        "SELECT * FROM executable('id', 'CSV', 'a String')",
        "CREATE FUNCTION mine AS x -> x",
        "SYSTEM FLUSH LOGS",
    ],
)
def test_a_reader_changes_nothing_and_leaves_nothing(opened: Opened, statement: str) -> None:
    with pytest.raises(ClickHouseError), opened.api.reader("contract-a", READER_SETTINGS) as reader:
        reader.command(statement.replace("{rows}", opened.api.dialect.rows))
    assert scalar(opened.store.client(), ours("SELECT count() FROM ledger WHERE {ours}")) == 2 * CALLS


@pytest.mark.parametrize("opened", ["embedded"], indirect=True)
def test_a_reader_has_no_part_in_the_writer_s_files(opened: Opened) -> None:
    """What lets the writer read payloads isn't the reader's; who takes it up again is still kept from files by being a reader."""

    def ask(*statements: str) -> None:
        with opened.api.reader("contract-a", READER_SETTINGS) as reader:
            for statement in statements:
                reader.command(statement)

    read = "SELECT * FROM file('payload', 'CSV', 'a String')"
    assert scalar(opened.store.client(), "SELECT enabledRoles()") == ["payloads"]
    ask("SELECT throwIf(enabledRoles() != [])")
    with pytest.raises(ClickHouseError, match="ACCESS_DENIED"):
        ask(read)
    with pytest.raises(ClickHouseError, match="READONLY"):
        ask("SET ROLE payloads", "SELECT throwIf(enabledRoles() != ['payloads'])", read)


@pytest.mark.parametrize("opened", ["server", "shards"], indirect=True)
def test_escapes_show_nothing_of_others(opened: Opened) -> None:
    """Without the check that users' queries pass before: the server's own cage alone, through its shards too."""
    for query in ESCAPES[::4]:
        with opened.api.reader("contract-a", {**READER_SETTINGS, "max_execution_time": 5}) as reader:
            try:
                answer = reader.raw_query(query, fmt="TSV")
            except ClickHouseError:
                continue
        assert b"contract-b" not in answer, query
    assert scalar(opened.store.client(), ours("SELECT count() FROM ledger WHERE {ours}")) == 2 * CALLS


@pytest.mark.parametrize(
    ("limits", "query", "name"),
    [
        ({"max_result_rows": 10}, "SELECT span_id FROM ledger", "TOO_MANY_ROWS_OR_BYTES"),
        ({"max_execution_time": 1}, "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", "TIMEOUT_EXCEEDED"),
        ({"max_memory_usage": 30_000_000}, "SELECT length(groupArray(number)) FROM numbers(100000000)", "MEMORY_LIMIT_EXCEEDED"),
    ],
)
def test_limits_hold(opened: Opened, limits: dict[str, int], query: str, name: str) -> None:
    with pytest.raises(ClickHouseError) as refused:
        asked(opened.api, query, limits=limits)
    assert error_name(refused.value) == name


def test_limits_are_literals_of_sql(opened: Opened) -> None:
    with opened.api.reader("contract-a", {"date_time_output_format": "'iso'", "max_threads": 1}) as reader:
        assert reader.raw_query("SELECT toDateTime('2026-10-01 00:00:00', 'UTC')", fmt="TSV") == b"2026-10-01T00:00:00Z\n"


def test_times_are_utc(opened: Opened) -> None:
    found = scalar(opened.api.client(), "SELECT min(started_at) FROM ledger WHERE tenant = 'contract-a'")
    assert found.replace(tzinfo=UTC) == datetime(2026, 10, 1, tzinfo=UTC)
    if opened.store.dialect.kind is not Kind.EMBEDDED:
        told = scalar(opened.api.client(), "SELECT toString(now())")
        assert abs(datetime.fromisoformat(told).replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=5)
