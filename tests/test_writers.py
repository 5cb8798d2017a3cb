"""Several writers, in processes of their own, on one ledger: what they enter together is what one would have, whoever is stopped or killed when."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from otlp import request, span
from server import CLEAN
from test_recordings import recordings
from writing import RECEIVED_NS, TENANT

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices
from tallystick.ingest.migrate import migrate
from tallystick.ingest.payload import Limits, check_frame, decode
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import Store
from tallystick.ingest.writer import Item, Writer, is_poison

Payload = tuple[bytes, int]
Batch = Sequence[Payload]

TOTALS = """SELECT
    sum(calls), sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), countIf(calls != 0),
    -- Of a call told twice, one that came late was never entered, one that came early was, and voided.
    sumIf(sipHash64(trace_id, calls, cost_usd, input_tokens), calls != 0)
FROM
(
    SELECT
        trace_id, sum(calls) AS calls, sum(cost_usd) AS cost_usd, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cache_read_tokens) AS cache_read_tokens
    FROM ledger WHERE tenant = '{tenant}' GROUP BY trace_id
)"""
DOUBLED = "SELECT count() FROM (SELECT 1 FROM ledger WHERE entry = 'call' GROUP BY tenant, trace_id, span_id HAVING count() > 1)"


def plain(first: int, count: int) -> Payload:
    spans = [span(f"plain {i}", start_ns=RECEIVED_NS - i * 1_000_000) for i in range(first, first + count)]
    return request(*spans).SerializeToString(), count


def halves(first: int, count: int, inner: bool) -> Payload:
    """Calls that two instrumentations tell of, in traces of their own: one half of it. Only their process and time tie them to each other."""
    who = "opentelemetry.instrumentation.anthropic" if inner else "opentelemetry.instrumentation.openai"
    known = {"gen_ai.usage.cache_read.input_tokens": 500} if inner else {}
    name = "inner" if inner else "outer"
    spans = [
        span(
            f"half {i} {name}",
            start_ns=RECEIVED_NS - i * 10_000_000_000 + inner * 10_000_000,
            duration_ns=1_000_000_000 - inner * 100_000_000,
            attributes=known,
        )
        for i in range(first, first + count)
    ]
    return request(*spans, scope=who, resource={"service.instance.id": "two"}).SerializeToString(), count


def recorded() -> list[Payload]:
    """Each span of each recording as a payload of its own."""
    found = []
    for one in recordings().values():
        for alone in one.split(tuple(range(len(one.spans)))):
            payload = decode(json.dumps(alone).encode(), "application/json", "", Limits(10_000_000, 1000), check_frame)
            found.append((payload.data, payload.spans))
    return found


def batches() -> list[list[Payload]]:
    """Everything twice, in an order that is the same in every run: no batch has both spans of a call by plan, many hold the same span."""
    payloads = [*recorded(), *(plain(i * 20, 30) for i in range(20))]
    payloads += [halves(i * 5, 5, inner) for i in range(6) for inner in (True, False)]
    payloads += payloads
    random.Random(8).shuffle(payloads)
    return [payloads[i : i + 90] for i in range(0, len(payloads), 90)]


class Process:
    """One that writes."""

    def __init__(self, folder: Path, given: Sequence[Batch], env: dict[str, str], stop_at: str = "") -> None:
        file = folder / f"{time.monotonic_ns()}.pickle"
        file.write_bytes(pickle.dumps(given))
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("writing.py"), file],
            stdout=subprocess.PIPE, text=True, env={**CLEAN, **env, "STOP_AT": stop_at},
        )  # fmt: skip

    def says(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ends(self) -> list[str]:
        out, _ = self._process.communicate(timeout=240)
        assert self._process.returncode == 0
        return out.splitlines()


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse") / "one") as server:
        yield server


@contextmanager
def emptied(server: ClickHouse) -> Iterator[Store]:
    store = ServerStore(server.url(), server.password)
    migrate(store, 0)
    for table in ("ledger", "instrumentations"):
        store.client().command(f"TRUNCATE TABLE {table}")
    yield store
    store.close()


def embedded(store: Store, given: Sequence[Batch], tenant: str) -> list[Sequence[Any]]:
    """What one writer makes of it."""
    writer = Writer(store, PriceBook(UserPrices()))
    for batch in given:
        writer.write([Item(data, spans, tenant, RECEIVED_NS) for data, spans in batch])
    return list(store.client().query(TOTALS.format(tenant=tenant)).result_rows)


def totals(store: Store) -> list[Sequence[Any]]:
    assert store.client().query(DOUBLED).result_rows == [(0,)]
    return list(store.client().query(TOTALS.format(tenant=TENANT)).result_rows)


def test_four_enter_what_one_would(one_server: ClickHouse, chdb_store: Store, tmp_path: Path) -> None:
    given = batches()
    with emptied(one_server) as store:
        running = [Process(tmp_path, given[i::4], one_server.env("ingest")) for i in range(4)]
        for process in running:
            process.ends()
        assert totals(store) == embedded(chdb_store, given, "four writers")


def test_halves_of_calls_told_to_two_writers(one_server: ClickHouse, tmp_path: Path) -> None:
    """Neither has seen both instrumentations: they tell each other."""
    with emptied(one_server) as store:
        for inner in (False, True):
            assert Process(tmp_path, [[halves(0, 8, inner)]], one_server.env("ingest")).ends()
        assert totals(store)[0][0] == 8


@pytest.mark.parametrize(
    ("step", "end"),
    [("looked", "goes on"), ("entering", "goes on"), ("entered", "goes on"), ("looked", "killed"), ("entering", "killed")],
)
def test_one_that_is_stopped(one_server: ClickHouse, tmp_path: Path, step: str, end: str) -> None:
    with emptied(one_server) as store:
        stopped = Process(tmp_path, [[plain(0, 40)]], one_server.env("ingest"), step)
        assert stopped.says() == step
        # The same calls, and some more: they wait for the lease, and for what the server still does.
        other = Process(tmp_path, [[plain(20, 40)], [plain(0, 70)]], one_server.env("ingest"))
        assert other.ends()[-1].startswith("entered ")
        standing = totals(store)
        assert standing[0][0] == 70
        if end == "killed":
            stopped.kill()
        else:
            stopped.go_on()
            assert stopped.ends() == ["entered 0 voided 0"]
        assert totals(store) == standing


def test_a_server_that_is_restarted_meanwhile(one_server: ClickHouse, tmp_path: Path) -> None:
    with emptied(one_server) as store:
        stopped = Process(tmp_path, [[plain(0, 40)]], one_server.env("ingest"), "looked")
        assert stopped.says() == "looked"
        one_server.restart()
        other = Process(tmp_path, [[plain(20, 40)]], one_server.env("ingest"))
        assert other.ends() == ["entered 40 voided 0"]
        stopped.go_on()
        assert stopped.ends() == ["entered 20 voided 0"]
        assert totals(store)[0][0] == 60


def test_two_shards(tmp_path: Path, chdb_store: Store) -> None:
    given = batches()[:5]
    with ClickHouseCluster(tmp_path / "shards") as cluster:
        env = {
            "TALLYSTICK_CLICKHOUSE": cluster.url("ingest"),
            "TALLYSTICK_CLICKHOUSE_PASSWORD": cluster.password,
            "CLUSTER": CLUSTER,
        }
        store = ServerStore(cluster.url(), cluster.password, cluster=CLUSTER)
        migrate(store, 0)
        running = [Process(tmp_path, given[i::2], env) for i in range(2)]
        for process in running:
            process.ends()
        assert totals(store) == embedded(chdb_store, given, "two shards")
        # A trace's entries stand on one shard, and both have some.
        spread = "SELECT uniqExact(shard) FROM (SELECT _shard_num AS shard, trace_id FROM ledger GROUP BY 1, 2) GROUP BY trace_id"
        assert {row[0] for row in store.client().query(spread).result_rows} == {1}
        both = "SELECT uniqExact(_shard_num), uniqExactIf(_shard_num, entry = 'void') FROM ledger"
        assert store.client().query(both).result_rows == [(2, 2)]
        before = totals(store)
        # A shard dies while a batch is entered on both, and its writer with it.
        stopped = Process(tmp_path, [[plain(1000, 60)]], env, "entering")
        assert stopped.says() == "entering"
        cluster.shards[1].kill()
        stopped.kill()
        cluster.shards[1].start()
        again = Process(tmp_path, [[plain(1000, 60)]], env)
        again.ends()
        after = totals(store)
        assert after[0][0] == before[0][0] + 60
        store.close()


@pytest.mark.parametrize(
    ("name", "message", "poison"),
    [
        ("MEMORY_LIMIT_EXCEEDED", "Query memory limit exceeded: would use 12.06 MiB", True),
        ("MEMORY_LIMIT_EXCEEDED", "Memory limit (for query) exceeded: would use 9.37 GiB", True),
        ("MEMORY_LIMIT_EXCEEDED", "(total) memory limit exceeded: would use 9.37 GiB", False),
        ("MEMORY_LIMIT_EXCEEDED", "User memory limit exceeded: would use 9.37 GiB", False),
        ("CANNOT_PARSE_PROTOBUF", "", True),
        ("NOT_ENOUGH_SPACE", "", False),
    ],
)
def test_what_comes_again_with_the_same_batch(name: str, message: str, poison: bool) -> None:
    """What a server lacks because of others is no reason for a dead letter."""
    assert is_poison(name, message) is poison
