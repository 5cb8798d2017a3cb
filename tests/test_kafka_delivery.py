"""Model spans straight to a real Kafka broker: the bytes of HTTP, acknowledged, and none lost while brokers are away."""

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from broker import Broker
from kafka import errors
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from server import CLEAN, Server

from tallystick.collectors import kafka as sender
from tallystick.collectors import span_queue
from tallystick.collectors.content import outgoing
from tallystick.collectors.delivery import Delivery
from tallystick.collectors.kafka import KafkaDelivery
from tallystick.collectors.losses import Loss
from tallystick.collectors.settings import Kafka, read
from tallystick.collectors.span_queue import Counts, Outcome, SpanQueue
from tallystick.schema.kafka import headers
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

PROVIDER = TracerProvider(shutdown_on_exit=False)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return name.replace("[", ".").rstrip("]")[:200]


def spans(count: int, first: int = 0, size: int = 10) -> list[ReadableSpan]:
    made: list[ReadableSpan] = []
    for number in range(first, first + count):
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": number,
            "tallystick.tag.x": "x" * size,
        }
        span = PROVIDER.get_tracer("test").start_span(str(number), attributes=attributes)
        span.end()
        assert isinstance(span, ReadableSpan)
        made.append(span)
    return made


def settings(broker: Broker, topic: str) -> Kafka:
    kafka = read({"TALLYSTICK_KAFKA": broker.address, "TALLYSTICK_KAFKA_TOPIC": topic}).kafka
    assert kafka
    return kafka


def queue(broker: Broker, topic: str, **environ: str) -> SpanQueue:
    given = read(
        {"TALLYSTICK_KAFKA": broker.address, "TALLYSTICK_KAFKA_TOPIC": topic, "OTEL_BSP_SCHEDULE_DELAY": "20", **environ}
    )
    kafka = given.kafka
    assert kafka
    return SpanQueue(given, lambda: KafkaDelivery(kafka))


def names(values: Sequence[bytes]) -> list[str]:
    return [
        span.name
        for value in values
        for of in ExportTraceServiceRequest.FromString(value).resource_spans
        for under in of.scope_spans
        for span in under.spans
    ]


def values(broker: Broker, topic: str) -> list[bytes]:
    return [message.value for message in broker.messages(topic)]


def test_a_message_is_what_http_would_carry(broker: Broker, topic: str) -> None:
    batch = [outgoing(span) for span in spans(40)]
    delivery = KafkaDelivery(settings(broker, topic), clock=lambda: 1_700_000_000_000_000_001)
    assert delivery.send(batch) is Outcome.STORED
    delivery.close()
    with Unpacked() as receiver:
        over_http = Delivery(read({"TALLYSTICK_URL": receiver.url}))
        assert over_http.send(batch) is Outcome.STORED
        over_http.close()
    (message,) = broker.messages(topic)
    assert [message.value] == receiver.unpacked
    assert message.key is None
    assert message.headers == dict(headers(message.headers["tallystick-sender"].decode(), 1_700_000_000_000_000_001))
    assert message.headers["tallystick-sender"].startswith(b"collector/")


class Unpacked(SpanReceiver):
    """Keeps what came, decompressed."""

    def __init__(self) -> None:
        super().__init__()
        self.unpacked: list[bytes] = []

    def _take(self, headers: Any, body: bytes) -> tuple[int, bytes]:
        self.unpacked.append(gzip.decompress(body))
        return super()._take(headers, body)


def test_replayed_values_make_the_same_ledger(broker: Broker, topic: str, server: Server) -> None:
    made = spans(100)
    straight, through = queue(broker, topic), server.key("over-http")
    http = read({"TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": through})
    with_server = SpanQueue(http, lambda: Delivery(http))
    for span in made:
        straight.put(span)
        with_server.put(span)
    assert straight.flush(30)
    assert with_server.flush(30)
    straight.stop()
    with_server.stop()
    replayed = server.key("over-kafka")
    server.post_all(values(broker, topic), replayed)
    query = "SELECT * EXCEPT (tenant, entered_at) FROM charges ORDER BY span_id"
    assert server.sql(query, replayed) == server.sql(query, through)
    assert len(server.sql(query, replayed)) == 100


def test_every_span_arrives_though_the_broker_is_killed(broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(span_queue, "LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr(sender, "TIMEOUT_MS", 1_500)
    sending = queue(broker, topic, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="20")
    made = spans(3_000)
    stop = threading.Event()

    def call() -> None:
        for span in made:
            sending.put(span)
            stop.wait(0.001)

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(0.5)
    broker.kill()
    broker.start()
    caller.join()
    until = time.monotonic() + 60
    while sending.counts().waiting and time.monotonic() < until:
        sending.flush(5)
    sending.stop()
    assert sending.counts() == Counts(waiting=0, exported=3_000, lost={}, error="")
    arrived = names(values(broker, topic))
    assert set(arrived) == {str(number) for number in range(3_000)}
    assert len([thread for thread in threading.enumerate() if "network-thread" in thread.name]) <= 2


def test_a_batch_larger_than_a_message_is_halved(broker: Broker, topic: str) -> None:
    sending = queue(broker, topic, OTEL_BSP_SCHEDULE_DELAY="60000")
    for span in [*spans(4, size=400_000), *spans(1, first=4, size=1_000_000), *spans(1, first=5)]:
        sending.put(span)
    assert sending.flush(30)
    sending.stop()
    assert sending.counts().lost == {Loss.REFUSED: 1}
    assert sorted(names(values(broker, topic))) == ["0", "1", "2", "3", "5"]


def test_a_span_that_cannot_be_encoded_is_dropped_alone(broker: Broker, topic: str) -> None:
    sending = queue(broker, topic, OTEL_BSP_SCHEDULE_DELAY="60000")
    bad = PROVIDER.get_tracer("test").start_span("\ud800")
    bad.end()
    assert isinstance(bad, ReadableSpan)
    for span in [*spans(3), bad]:
        sending.put(span)
    assert sending.flush(30)
    sending.stop()
    assert (sending.counts().exported, sending.counts().lost) == (3, {Loss.ENCODING: 1})


def test_what_the_broker_refuses_is_halved_and_poisons_nothing(broker: Broker, topic: str) -> None:
    """A producer that a broker has once refused fails for ever: with error 10, so did all the messages after it."""
    broker.make_topic(topic, {"max.message.bytes": "20000"})
    sending = queue(broker, topic, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_EXPORTER_OTLP_COMPRESSION="none")
    for span in [*spans(4, size=8_000), *spans(1, first=4, size=30_000), *spans(2, first=5)]:
        sending.put(span)
    assert sending.flush(30)
    for span in spans(1, first=7):
        sending.put(span)
    assert sending.flush(30)
    sending.stop()
    assert sending.counts() == Counts(waiting=0, exported=7, lost={Loss.REFUSED: 1}, error="")
    assert sorted(names(values(broker, topic))) == ["0", "1", "2", "3", "5", "6", "7"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.RecordListTooLargeError, Outcome.REFUSED),
        (errors.InvalidRecordError, Outcome.REFUSED),
        (errors.TopicAuthorizationFailedError, Outcome.KEEP),
        (errors.CorruptRecordError, Outcome.KEEP),
        (errors.NotEnoughReplicasError, Outcome.KEEP),
    ],
)
def test_only_what_is_about_the_batch_is_final(
    error: type[errors.KafkaError], outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Kafka) -> Any:
        raise error

    monkeypatch.setattr(sender, "_connected", refused)
    delivery = KafkaDelivery(Kafka(("127.0.0.1:1",), "t", True, {}))
    assert delivery.send(spans(1)) is outcome
    assert delivery.error == error.__name__


def test_being_turned_away_is_told_apart_from_a_plain_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_MS", 200)
    for security, said in [({}, ""), ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}, "password")]:
        user = {"sasl_plain_username": "u", "sasl_plain_password": "the-password"} if security else {}
        delivery = KafkaDelivery(Kafka(("127.0.0.1:1",), "t", True, security | user))
        assert delivery.send(spans(1)) is Outcome.KEEP
        assert delivery.error.startswith("KafkaTimeoutError")
        assert said in delivery.error
        assert "the-password" not in delivery.error


def test_close_interrupts_a_send(broker: Broker, topic: str) -> None:
    delivery = KafkaDelivery(settings(broker, topic))
    assert delivery.send(spans(1)) is Outcome.STORED
    broker.pause()
    try:
        threading.Timer(0.2, delivery.close).start()
        assert delivery.send(spans(1)) is Outcome.KEEP
    finally:
        broker.resume()
    assert delivery.send(spans(1)) is Outcome.KEEP, "closed"


SERVICE = """
import sys
import tallystick.auto
import openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="k", max_retries=0)
def call():
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
call()
"""


def service(code: str, url: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, url],
        check=False,
        env={**CLEAN, "TALLYSTICK_STRICT": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_is_left_at_the_end_of_a_process_is_sent(broker: Broker, topic: str) -> None:
    """The producer's own handler for that would close it first."""
    code = SERVICE + "import tallystick\nassert tallystick.flush(60)\ncall()\n"
    with ProviderServer() as provider:
        done = service(code, provider.url + "/v1", TALLYSTICK_KAFKA=broker.address, TALLYSTICK_KAFKA_TOPIC=topic)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert names(values(broker, topic)) == ["chat gpt-4o"] * 2


def test_without_the_extra_the_log_says_what_to_install(provider_url: str) -> None:
    code = "import sys; sys.modules['kafka'] = None\n" + SERVICE
    done = service(code, provider_url, TALLYSTICK_KAFKA="127.0.0.1:1", TALLYSTICK_STRICT="0")
    assert done.returncode == 0
    assert "pip install 'tallystick[kafka]'" in done.stderr
    assert "1 of 1 model spans were lost: 1 no sender" in done.stderr


@pytest.fixture
def provider_url() -> Iterator[str]:
    with ProviderServer() as provider:
        yield provider.url + "/v1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_producer_of_its_own(broker: Broker, topic: str) -> None:
    sending = queue(broker, topic)
    sending.put(spans(1)[0])
    assert sending.flush(30)
    child = os.fork()
    if child == 0:
        sending.put(spans(1, first=1)[0])
        os._exit(0 if sending.flush(30) and sending.counts().exported == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sending.put(spans(1, first=2)[0])
    assert sending.flush(30)
    sending.stop()
    assert sorted(names(values(broker, topic))) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("environ", "security"),
    [
        ({}, {"security_protocol": "PLAINTEXT"}),
        ({"CERTIFICATE": "ca.pem"}, {"security_protocol": "SSL", "ssl_cafile": "ca.pem"}),
        (
            {"USERNAME": "u", "PASSWORD": "p"},
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": "u",
                "sasl_plain_password": "p",
            },
        ),
        (
            {"USERNAME": "u", "PASSWORD": "p", "SECURITY_PROTOCOL": "sasl_plaintext", "SASL_MECHANISM": "plain"},
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": "u",
                "sasl_plain_password": "p",
            },
        ),
        ({"SECURITY_PROTOCOL": "TLS", "CERTIFICATE": "c"}, {"security_protocol": "SSL", "ssl_cafile": "c"}),
    ],
)
def test_security(environ: dict[str, str], security: dict[str, str]) -> None:
    given = read({"TALLYSTICK_KAFKA": "a:1, b:2", **{f"TALLYSTICK_KAFKA_{name}": value for name, value in environ.items()}})
    assert given.kafka == Kafka(("a:1", "b:2"), "tallystick.otlp", True, security)
    assert "'p'" not in repr(given)
    assert given.server == "kafka://a:1,b:2/tallystick.otlp"


@pytest.mark.parametrize("environ", [{}, {"TALLYSTICK_KAFKA": " , "}])
def test_without_brokers_it_is_http(environ: dict[str, str]) -> None:
    assert read(environ).kafka is None


def test_a_bad_topic_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    kafka = read({"TALLYSTICK_KAFKA": "a", "TALLYSTICK_KAFKA_TOPIC": "no topic"}).kafka
    assert kafka
    assert kafka.topic == "tallystick.otlp"
    assert "no name of a topic" in caplog.text
