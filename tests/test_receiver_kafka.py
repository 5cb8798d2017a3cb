"""`tallystick receiver` in a process of its own, over HTTP and gRPC, before a real Kafka."""

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from broker import Broker
from consuming import until
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from otlp import request, span
from server import COMMAND, Server, reason, rejected

from tallystick.ingest.keys import KeyStore, Role
from tallystick.ingest.topics import ensure_topics
from tallystick.schema.kafka import Brokers, read_headers
from tallystick.server.brokers import brokers_of
from tallystick.settings import BadSetting, Settings

NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture
def topic(request: pytest.FixtureRequest, broker: Broker) -> str:
    name: str = request.node.name.replace("[", ".").rstrip("]")[:200]
    ensure_topics(Brokers((broker.address,), {}), name, "dead", partitions=2)
    return name


class Receiving(Server):
    """`tallystick receiver`, as `Server` drives `tallystick up`."""

    def __init__(self, data: Path, brokers: str, topic: str, *, host: str = "127.0.0.1", **given: Any) -> None:
        env = {"TALLYSTICK_KAFKA": brokers, "TALLYSTICK_KAFKA_RECEIVED": topic, "TALLYSTICK_HOST": host}
        super().__init__(data, **{**given, "env": {**env, **given.get("env", {})}})

    def launch(self) -> subprocess.Popen[str]:
        command = [*COMMAND, "receiver", "--data", str(self.data), "--port", str(self.port), "--grpc-port", str(self.grpc_port)]
        with self._log.open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._env)

    def get(self, path: str) -> tuple[int, str]:
        answer = self.http.get(path)
        return answer.status_code, answer.text


def body(number: int, size: int = 10) -> ExportTraceServiceRequest:
    return request(span(f"call {number}", attributes={"tallystick.tag.x": os.urandom(size // 2).hex()}))


def test_what_is_posted_is_in_kafka(broker: Broker, topic: str, tmp_path: Path) -> None:
    with Receiving(tmp_path / "receiver", broker.address, topic, grpc=True) as receiver:
        key = receiver.key("acme")
        assert receiver.post(body(1), key).content == b""
        assert receiver.post(body(2), receiver.key("all", operator=True)).status_code == 200
        bad = receiver.post({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "x"}]}]}]}, key)
        assert (bad.status_code, rejected(bad)) == (200, 1)
        large = receiver.post(body(3, 1_200_000), key)
        assert (rejected(large), reason(large)) == (1, "1 spans: over 1,000,000 bytes")
        assert receiver.post(b"\x00garbage", key).status_code == 400
        assert receiver.post(body(4), "wrong").status_code == 401
        assert receiver.post(body(4), receiver.key("acme", role=Role.READER)).status_code == 403
        assert receiver.get("/healthz") == (200, '{"status": "alive"}')
        assert receiver.get("/readyz") == (200, '{"status": "ready"}')
        assert receiver.get("/v1/spend")[0] == 404
        exporter = OTLPSpanExporter(
            endpoint=f"127.0.0.1:{receiver.grpc_port}", insecure=True, headers=(("authorization", f"Bearer {key}"),), timeout=30
        )
        with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("grpc") as made:
            pass
        assert isinstance(made, ReadableSpan)
        assert exporter.export([made]) is SpanExportResult.SUCCESS
        exporter.shutdown()
        receiver.stop()
    messages = broker.messages(topic)
    told = sorted((read_headers(list(message.headers.items())) for message in messages), key=lambda one: one.number or 0)
    assert [(one.tenant, one.operator, one.spans, one.number) for one in told] == [
        ("acme", False, 1, 1),
        ("all", True, 1, 2),
        ("acme", False, 1, 3),
    ]
    assert "gpt-4o-mini" not in receiver.log()


def test_keys_may_be_shared(broker: Broker, topic: str, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    key = KeyStore(tmp_path / "shared").create("acme", Role.WRITER)
    env = {"TALLYSTICK_KEYS": str(tmp_path / "shared" / "keys.json")}
    with Receiving(tmp_path / "receiver", broker.address, topic, env=env) as receiver:
        assert receiver.post(body(1), key).status_code == 200
        # Acknowledged, it may be in the spool until the first connection stands.
        until(lambda: len(broker.messages(topic)) == 1)


def test_without_a_broker_it_spools_until_it_is_full_and_the_next_start_sends(broker: Broker, topic: str, tmp_path: Path) -> None:
    bodies = [body(number, 500_000) for number in range(12)]
    taken: set[bytes] = set()
    env = {"TALLYSTICK_SPOOL_BYTES": "3000000"}
    with Receiving(tmp_path / "receiver", NOWHERE, topic, env=env) as receiver:
        for one in bodies:
            answer = receiver.post(one)
            if answer.status_code == 200:
                taken.add(one.SerializeToString())
                continue
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "unavailable"
        assert 3 < len(taken) < 9
        assert receiver.get("/readyz") == (503, '{"status": "no broker takes messages, and the spool or its disk is full"}')
        second = Receiving(tmp_path / "receiver", NOWHERE, topic).launch()
        assert second.wait(60) == 1, receiver.log()
        assert f"another process holds {tmp_path / 'receiver' / 'spool.sqlite3'}" in receiver.log()
        receiver.stop()
    with Receiving(tmp_path / "receiver", broker.address, topic, env=env) as receiver:
        assert receiver.post(body(100)).status_code == 200
        receiver.stop()
    assert taken < {message.value for message in broker.messages(topic)}


def test_a_killed_receiver_loses_nothing_that_it_answered(broker: Broker, topic: str, tmp_path: Path) -> None:
    answered: set[bytes] = set()
    with Receiving(tmp_path / "receiver", broker.address, topic) as receiver:
        for round_ in range(3):

            def send(one: bytes, receiver: Receiving = receiver) -> bytes | None:
                try:
                    return one if receiver.post(one).status_code == 200 else None
                except httpx.TransportError:
                    return None

            with ThreadPoolExecutor(8) as pool:
                futures = [pool.submit(send, body(number, 2_000).SerializeToString()) for number in range(300)]
                for future in futures[: 100 + 60 * round_]:
                    future.result()
                receiver.process.send_signal(signal.SIGKILL)
                answered |= {one for future in futures if (one := future.result())}
            receiver.kill()
            receiver.start()
        receiver.stop()
    assert len(answered) >= 480
    assert answered <= {message.value for message in broker.messages(topic)}


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "TALLYSTICK_KAFKA names no broker"),
        ({"TALLYSTICK_KAFKA": " , "}, "TALLYSTICK_KAFKA names no broker"),
        (
            {"TALLYSTICK_KAFKA": NOWHERE, "TALLYSTICK_KAFKA_RECEIVED": "no topic"},
            "TALLYSTICK_KAFKA_RECEIVED is no name of a topic",
        ),
        (
            {"TALLYSTICK_KAFKA": NOWHERE, "TALLYSTICK_KAFKA_SECURITY_PROTOCOL": "TLS"},
            "TALLYSTICK_KAFKA_SECURITY_PROTOCOL='TLS' is none of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL$",
        ),
    ],
)
def test_wrong_settings_are_told(env: dict[str, str], told: str) -> None:
    with pytest.raises(BadSetting, match=told):
        brokers_of(Settings.load(env), env)


def test_who_we_are_comes_from_the_environment() -> None:
    env = {"TALLYSTICK_KAFKA": "a:1, b:2", "TALLYSTICK_KAFKA_USERNAME": "u", "TALLYSTICK_KAFKA_PASSWORD": "the-password"}
    found = brokers_of(Settings.load(env), env)
    assert found.addresses == ("a:1", "b:2")
    assert found.security["security_protocol"] == "SASL_SSL"
    assert found.security["sasl_mechanism"] == "SCRAM-SHA-512"
    assert "the-password" not in repr(found)
