"""The audit where Kafka is on the way: messages that were deleted, ones that wait, ones that can't be entered; figures of each role."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from broker import Broker
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition
from otlp import request, span
from pushed_runs import priced, pushed
from server import free_port
from system import Part, System
from test_metrics import missing

from tallystick.schema.kafka import RECEIVED
from tallystick.server.metrics import Role

SPANS = 3


class Scene:
    """One of everything."""

    def __init__(self, system: System, api: str, health: str) -> None:
        self.system, self.api, self.health = system, api, health
        self._batch = 0

    def send(self, batches: int) -> None:
        """Batches of one collector, that lives as long as the scene."""
        for _ in range(batches):
            self._batch += 1
            told = {
                "service.name": "shop",
                "tallystick.collector.id": "c0",
                "tallystick.collector.batch": self._batch,
                "tallystick.collector.ended": self._batch * SPANS,
                "tallystick.collector.lost": 0,
            }
            body = request(*(span(f"{self._batch}-{one}") for one in range(SPANS)), resource=told).SerializeToString()
            answer = httpx.post(
                f"{self.system.urls[0]}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"}, timeout=60
            )
            assert answer.status_code == 200, answer.text

    def audit(self) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
        done = self.system.run("audit", "--url", self.api, "--json", "--settle", "0")
        assert done.returncode in (0, 1), done.stderr
        rows = json.loads(done.stdout)
        return done.returncode, rows[0], [row for row in rows if row["kind"] == "finding"]

    def partitions_read(self) -> int:
        found = self.system.rows(f"SELECT uniqExact(partition) AS n FROM flows WHERE source = '{RECEIVED}'")
        return int(found[0]["n"])

    def entered(self, calls: int) -> bool:
        return bool(self.system.rows("SELECT count() AS n FROM ledger")[0]["n"] == calls)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("audit")
    with System(folder, receivers=1, consumers=0) as system:
        health, port = free_port(), free_port()
        consumer = system.consumer("consumer", {"TALLYSTICK_HEALTH_PORT": str(health)})
        api = Part(
            folder,
            "api",
            ["api", "--port", str(port), "--data", str(folder / "api")],
            {**system.env, **system.clickhouse.env("api")},
        )
        try:
            for part in (api, consumer):
                part.launch()
            for part in (api, consumer):
                part.wait_until_ready()
            system.consumers = [consumer]
            yield Scene(system, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health}")
        finally:
            api.kill()
            consumer.kill()


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 90
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def delete(broker: Broker) -> int:
    """All messages that the received topic holds, as its retention would; how many there were that nobody had read."""
    admin: Any = KafkaAdminClient(bootstrap_servers=broker.address)
    try:
        number = len(broker.messages(RECEIVED))
        admin.delete_records({TopicPartition(RECEIVED, one): -1 for one in range(4)})
        return number - len(broker.messages(RECEIVED))
    finally:
        admin.close()


def test_first_nothing_then_messages_deleted_before_they_were_read(scene: Scene) -> None:
    consumer = scene.system.consumers[0]
    scene.send(6)
    until(lambda: scene.entered(6 * SPANS))
    # Killed and started again it loses nothing, and nothing looks as if it had.
    consumer.kill()
    scene.send(4)
    code, summary, findings = scene.audit()
    assert (code, summary["clean"]) == (0, True)
    # What it had entered and not committed is there, and waits, too.
    assert 4 <= summary["waiting"] <= 10
    assert {one["state"] for one in findings} == {"unfinished"}
    consumer.start()
    until(lambda: scene.entered(10 * SPANS))
    until(lambda: scene.audit()[1]["waiting"] == 0)
    code, summary, findings = scene.audit()
    assert (code, findings, summary["lost_spans"]) == (0, [], 0)
    # What begins a partition may have been deleted before there was a consumer: its loss is only proven behind what was read.
    sent = 10
    while scene.partitions_read() < 4:
        scene.send(1)
        sent += 1
        until(partial(scene.entered, sent * SPANS))

    consumer.kill()
    scene.send(5)
    delete(scene.system.broker)
    consumer.start()
    scene.send(8)
    until(lambda: scene.entered((sent + 8) * SPANS))
    until(lambda: scene.audit()[1]["waiting"] == 0)
    code, summary, findings = scene.audit()
    assert code == 1
    assert summary["lost_spans"] == 5 * SPANS
    assert summary["lost_messages"] == 5
    by_place = {place: [one for one in findings if one["place"] == place] for place in ("way", "receiver", "kafka")}
    assert [one["spans"] for one in by_place["way"]] == [5 * SPANS]
    assert [(one["spans"], one["messages"]) for one in by_place["receiver"]] == [(5 * SPANS, 5)]
    assert all(one["state"] == "lost" for one in by_place["kafka"])
    assert "tallystick_consumer_skipped_total" in httpx.get(f"{scene.health}/metrics").text


def test_poison_is_kept_and_no_loss(scene: Scene) -> None:
    before = scene.audit()[1]["lost_messages"]
    scene.system.broker.send(RECEIVED, b"\xff\xff", {"tallystick-tenant": b"acme"})
    until(lambda: any(one["place"] == "dead-letters" for one in scene.audit()[2]))
    _, summary, findings = scene.audit()
    assert [(one["state"], one["messages"]) for one in findings if one["place"] == "dead-letters"] == [("kept", 1)]
    assert summary["lost_messages"] == before


def test_every_figure_of_each_role(scene: Scene) -> None:
    httpx.post(f"{scene.system.urls[0]}/v1/traces", content=b"\xff\xff", headers={"content-type": "application/x-protobuf"})
    httpx.get(f"{scene.api}/v1/q")
    run = pushed()
    assert httpx.post(f"{scene.api}/v1/probes/runs", json=run).status_code == 200
    assert httpx.post(f"{scene.api}/v1/probes/prices", json=priced(run)).status_code == 200
    until(lambda: "tallystick_consumer_lag{" in httpx.get(f"{scene.health}/metrics").text)
    assert missing(httpx.get(f"{scene.system.urls[0]}/metrics").text, Role.RECEIVER) == []
    assert missing(httpx.get(f"{scene.api}/metrics").text, Role.API) == []
    consumer = httpx.get(f"{scene.health}/metrics").text
    assert missing(consumer, Role.INGEST) == []
