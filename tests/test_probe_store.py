"""Runs of probes in the ledger's database: pushed, pushed again, read back; embedded, on a server, on shards."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from hypothesis import given
from hypothesis import strategies as st
from pushed_runs import HOUR_NS, START_NS, pushed

from tallystick.alerts.config_rules import ProbeRegressionRule
from tallystick.alerts.rules import look
from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.migrate import migrate
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import Store, read_sql, scalar
from tallystick.server.caged import caged
from tallystick.server.probe_store import Filter, RunHasEnded, keep, read_push, run, runs, workload

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TABLES = ("probe_runs", "probe_results", "probe_requests")


@pytest.fixture(scope="module", params=["embedded", "server", "shards"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """As the API has it."""
    if request.param == "embedded":
        yield cast(Store, request.getfixturevalue("chdb_store"))
        return
    data = tmp_path_factory.mktemp(request.param)
    servers = ClickHouse(data / "one") if request.param == "server" else ClickHouseCluster(data)
    cluster = "" if request.param == "server" else CLUSTER
    with servers as running:
        migrate(ServerStore(running.url("admin"), running.password, cluster=cluster), 0)
        yield ServerStore(running.url("api"), running.password, cluster=cluster)


def enter(store: Store, body: dict[str, Any], later_s: int = 0) -> bool:
    return keep(store.client(), read_push(json.dumps(body).encode()), NOW + timedelta(seconds=later_s))


def counts(store: Store, id: str) -> dict[str, int]:
    """Rows that stand."""
    return {
        table: scalar(
            store.client(), f"SELECT count() FROM {table} FINAL WHERE {'id' if table == 'probe_runs' else 'run'} = '{id}'"
        )
        for table in TABLES
    }


def test_what_was_pushed_is_read(opened: Store) -> None:
    body = pushed(0, probe="read", entry="read", requests=3, tokens_per_s=(200, 300))
    assert enter(opened, body)
    found = run(caged(opened, None), "run-0000-read")
    assert found is not None
    assert found["info"]["config"] == body["run"]["config"]
    assert found["stages"][1]["load"] == "poisson 8/s"
    figures = {(one["stage"], one["name"]): (one["value"], one["low"], one["n"], one["unit"]) for one in found["figures"]}
    assert figures[1, "output_tokens_per_s"] == (300, 295, 100, "tokens/s")
    assert figures[0, "ttft_p99"] == (None, None, 100, "ms")
    assert run(caged(opened, None), "no-such") is None


def test_requests_keep_their_raw_times(opened: Store) -> None:
    body = pushed(0, probe="raw", entry="raw", requests=2)
    enter(opened, body)
    (first, second) = (
        opened.client()
        .query(
            "SELECT sent_ns, first_generated_ns, last_generated_ns, event_ns, event_kind, event_characters, cached_tokens, reasoning_tokens "
            "FROM probe_requests FINAL WHERE run = 'run-0000-raw' ORDER BY number"
        )
        .result_rows
    )
    assert [list(one) if isinstance(one, list | tuple) else one for one in second] == [
        250_001_000, 270_000_000, 275_000_000, [252_000_000, 270_000_000, 275_000_000], ["role", "content", "content"], [0, 4, 5], 0, None,
    ]  # fmt: skip
    assert first[0] == 1000


def test_the_same_twice_is_one(opened: Store) -> None:
    body = pushed(0, probe="twice", entry="twice", requests=3)
    assert enter(opened, body)
    assert not enter(opened, body, 1)
    assert counts(opened, "run-0000-twice") == {"probe_runs": 1, "probe_results": 5, "probe_requests": 3}


def test_more_of_it_replaces_what_was_known(opened: Store) -> None:
    going = pushed(0, probe="more", entry="more", state="running", ended=False, requests=1)
    enter(opened, going)
    whole = pushed(0, probe="more", entry="more", requests=4, ttft_ms=250)
    # Fewer figures than before: none of the old ones stays.
    whole["stages"][0]["figures"] = whole["stages"][0]["figures"][:2]
    assert enter(opened, whole, 1)
    found = run(caged(opened, None), "run-0000-more")
    assert found is not None
    assert [(one["name"], one["value"]) for one in found["figures"]] == [("tpot_p50", 5), ("ttft_p50", 250)]
    with pytest.raises(RunHasEnded):
        enter(opened, going, 2)
    sql = "SELECT count() FROM probe_figures WHERE run = 'run-0000-more'"
    assert scalar(opened.client(), sql) == 2


def test_a_run_in_parts_stands_with_its_last(opened: Store) -> None:
    whole = pushed(0, probe="parts", entry="parts", requests=5)
    head = {"run": whole["run"], "revision": "ab" * 16}
    for part in (whole["requests"][:2], whole["requests"][2:4]):
        assert enter(opened, {**head, "requests": part, "more": True})
        assert run(caged(opened, None), "run-0000-parts") is None
    # A part that is sent again, as its answer was lost, is there once.
    assert enter(opened, {**head, "requests": whole["requests"][2:4], "more": True}, 1)
    assert enter(opened, {**head, "stages": whole["stages"], "requests": whole["requests"][4:]}, 2)
    assert counts(opened, "run-0000-parts") == {"probe_runs": 1, "probe_results": 5, "probe_requests": 5}
    assert not enter(opened, {**head, "requests": whole["requests"][:2], "more": True}, 3)


@pytest.mark.parametrize("at", TABLES)
def test_what_was_cut_off_changes_nothing(opened: Store, at: str) -> None:
    """A writer that ended before the table `at`: what stood before stands, and the same push again mends it."""
    name = f"cut-{at}"
    enter(opened, pushed(0, probe=name, entry=name, requests=1))
    again = read_push(json.dumps(pushed(0, probe=name, entry=name, ttft_ms=300, requests=2)).encode())

    class Ends:
        def __getattr__(self, name: str) -> Any:
            return getattr(opened.client(), name)

        def raw_insert(self, table: str, *given: Any, **more: Any) -> Any:
            if table == at:
                raise KeyboardInterrupt
            return opened.client().raw_insert(table, *given, **more)

    with pytest.raises(KeyboardInterrupt):
        keep(cast(Any, Ends()), again, NOW)
    sql = f"SELECT value FROM probe_figures WHERE probe = '{name}' AND name = 'ttft_p50'"
    assert opened.client().query(sql).result_rows == [(100,)]
    assert keep(opened.client(), again, NOW + timedelta(seconds=1))
    assert opened.client().query(sql).result_rows == [(300,)]


def test_pages(opened: Store) -> None:
    for number in range(7):
        enter(opened, pushed(number, probe="paged", entry="paged", state="done" if number % 2 else "failed"))

    def page(**which: Any) -> list[str]:
        return [row["id"] for row in runs(caged(opened, None), Filter(probe="paged", **which))]

    ids = [f"run-{number:04}-paged" for number in reversed(range(7))]
    assert page() == ids
    assert page(limit=3) == ids[:3]
    assert page(limit=3, before=ids[2]) == ids[3:6]
    assert page(before=ids[6]) == []
    assert page(state="failed") == ids[::2]
    assert page(since_ns=START_NS + 5 * HOUR_NS) == ids[:2]
    assert page(engine="vllm") == []


def test_who_may_see_it(opened: Store) -> None:
    enter(opened, pushed(0, probe="seen", entry="seen"))
    sql = "SELECT entry, name, value, quantisation FROM probe_figures WHERE probe = 'seen' AND name = 'tpot_p50'"
    for tenant, rows in ((None, [["seen", "tpot_p50", 5, "Q4_0"]]), ("acme", []), ("default", [])):
        with opened.reader(tenant, READER_SETTINGS) as reader:
            assert [list(row) for row in reader.query(sql).result_rows] == rows
    for table in TABLES:
        for database in {"tallystick", opened.dialect.rows}:
            with opened.reader("acme", READER_SETTINGS) as reader:
                assert reader.query(f"SELECT count() FROM {database}.{table}").result_rows[0][0] == 0


def test_rules_and_metrics_are_asked_everywhere(opened: Store) -> None:
    for number in range(3):
        enter(opened, pushed(number, probe="asked", entry="asked", ttft_ms=100 if number < 2 else 200))
    enter(opened, pushed(2, probe="asked-once", entry="asked"))

    def ask(sql: str, params: Any) -> Any:
        return opened.client().query(sql, parameters=dict(params)).result_rows

    watch = ProbeRegressionRule(name="slower", notify=("team",), runs=2, engine="asked")
    notes: list[str] = []
    assert [one.value for one in look(ask, watch, NOW, notes.append)] == []
    assert len(notes) == 2
    enter(opened, pushed(3, probe="asked", entry="asked", ttft_ms=300))
    enter(opened, pushed(4, probe="asked", entry="asked", ttft_ms=301))
    assert [one.value for one in look(ask, watch, NOW)] == ["asked asked"]
    latest = {row["probe"]: row for row in opened.client().query(read_sql("probe_latest")).named_results()}
    assert (latest["asked"]["ttft_p50"], latest["asked"]["goodput"], latest["asked"]["state"], latest["asked"]["input_usd"]) == (
        301, 10, "done", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": None}, "run: "),
        ({"run": {"id": "a b"}}, "run: `id` is letters"),
        ({"run": {"id": "x" * 201}}, "run: `id` is letters"),
        ({"run": {"state": "fine"}}, "run.state: "),
        ({"run": {"ended_ns": None}}, "run: `state` is done, and `ended_ns` is missing"),
        ({"run": {"started_ns": -1}}, "run: `started_ns` or `ended_ns` is outside"),
        ({"revision": "../x"}, "revision: "),
        ({"stagse": []}, "stagse: "),
        ({"stages": [{"number": 70_000, "load": "x", "valid": True}]}, "stages.0.number: "),
        ({"requests": [{"stage": 0}]}, "requests.0.number: "),
    ],
)
def test_what_cannot_be_kept(change: dict[str, Any], said: str) -> None:
    body = pushed()
    for name, value in change.items():
        body[name] = {**body[name], **value} if isinstance(value, dict) else value
    with pytest.raises(PayloadError) as error:
        read_push(json.dumps(body).encode())
    assert error.value.status == 422
    assert error.value.message.startswith(said), error.value.message


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff", b'{"run":{}}', b"[" * 10_000])
def test_what_is_no_run(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read_push(body)


def test_figures_are_numbers() -> None:
    body = json.dumps(pushed()).replace('"value": 100', '"value": NaN')
    with pytest.raises(PayloadError, match="finite"):
        read_push(body.encode())


@given(st.dictionaries(st.sampled_from(["target", "engines", "name", "timeouts"]), st.integers()), st.integers())
def test_runs_that_ask_the_same_are_comparable(others: dict[str, int], seed: int) -> None:
    config: dict[str, Any] = {"workload": {"input_tokens": 100}, "load": {"kind": "poisson", "rates": [1], "seed": 1}}
    assert workload(config | others | {"load": {**config["load"], "seed": seed}}) == workload(config)
    assert workload(config | {"workload": {"input_tokens": 101}}) != workload(config)
    assert workload(config | {"load": {"kind": "poisson", "rates": [2], "seed": 1}}) != workload(config)
