"""Payloads to a real Kafka: acknowledged by it or on disk, whatever becomes of brokers; and a mock cluster for what a broker seldom answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from broker import Broker, Brokers, Message
from hypothesis import given
from hypothesis import strategies as st
from mock_cluster import PRODUCE, MockCluster
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp import request, span
from server import CLEAN

from tallystick.ingest import flight, kafka_sink
from tallystick.ingest.committer import Full
from tallystick.ingest.flight import NoBroker, connect
from tallystick.ingest.kafka_sink import PATIENCE_S, KafkaSink
from tallystick.ingest.message_cuts import cut
from tallystick.ingest.spool import Spool
from tallystick.ingest.topics import ensure_topics
from tallystick.ingest.writer import Item, Outcome
from tallystick.schema import kafka
from tallystick.schema.kafka import Received, read_headers

EXAMPLE = Path(__file__).parent / "messages"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture
def topic(request: pytest.FixtureRequest, broker: Broker) -> str:
    name: str = request.node.name.replace("[", ".").rstrip("]")[:200]
    broker.make_topic(name, {})
    return name


def at(*addresses: str) -> kafka.Brokers:
    return kafka.Brokers(addresses, {})


@contextmanager
def sinking(
    brokers: kafka.Brokers, topic: str, data: Path, spool_bytes: int = 1 << 28, max_bytes: int = 64 << 20
) -> Iterator[KafkaSink]:
    spool = Spool(data, spool_bytes)
    sink = KafkaSink(brokers, topic, spool, max_bytes=max_bytes)
    sink.start()
    try:
        yield sink
    finally:
        sink.close()
        spool.close()


def item(number: int, size: int = 10) -> Item:
    """One span, which can hardly be compressed, named by its number."""
    made = request(span(str(number), attributes={"tallystick.tag.x": os.urandom(size // 2).hex()}), resource={"number": number})
    # Of now: brokers delete what is a week old, and refuse what is an hour ahead.
    return Item(made.SerializeToString(), 1, "acme", time.time_ns())


def submit(sink: KafkaSink, first: int, last: int, size: int = 10) -> "list[Future[Outcome]]":
    return [sink.submit(item(number, size)) for number in range(first, last)]


def acknowledged(futures: "list[Future[Outcome]]") -> None:
    for future in futures:
        assert future.result(60) == Outcome()


def until(seen: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not seen():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def said(message: Message) -> Received:
    return read_headers(list(message.headers.items()))


def arrived(messages: list[Message]) -> list[int]:
    """The numbers of `item`, each where it came first."""
    return list(dict.fromkeys(number(message.value) for message in messages))


def number(value: bytes) -> int:
    (of,) = ExportTraceServiceRequest.FromString(value).resource_spans
    return next(pair.value.int_value for pair in of.resource.attributes if pair.key == "number")


def test_a_message_is_what_was_received(broker: Broker, topic: str, tmp_path: Path) -> None:
    value = (EXAMPLE / "receiver.binpb").read_bytes()
    now = time.time_ns()
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
        assert sink.submit(Item(value, 2, "acme", now, operator=True)).result(60) == Outcome()
        assert sink.submit(Item(value, 2, "globex", now + 1)).result(60) == Outcome()
    one, two = broker.messages(topic)
    assert one.value == two.value == value
    assert one.key is None
    assert one.timestamp_ms == now // 1_000_000
    told, other = said(one), said(two)
    assert told.sender.startswith("receiver/")
    assert told[:7] == ("acme", True, now, 2, sink.receiver, 1, 2)
    assert other[:7] == ("globex", False, now + 1, 2, sink.receiver, 2, 4)
    assert (sink.tally.received, sink.tally.sent, sink.tally.spooled) == (4, 2, 0)


def test_a_payload_larger_than_a_message_becomes_several(broker: Broker, topic: str, tmp_path: Path) -> None:
    large = [
        span(str(number), attributes={"tallystick.tag.x": "x" * size}) for number, size in enumerate([700_000] * 3 + [1_100_000])
    ]
    data = request(*large).SerializeToString()
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
        assert sink.submit(Item(data, 4, "acme", time.time_ns())).result(60) == Outcome(rejected={"over 1,000,000 bytes": 1})
    messages = broker.messages(topic)
    assert [one for message in messages for one in spans(message.value)] == spans(data)[:3]
    assert [said(message).number for message in messages] == [1, 2, 3]
    assert sum(said(message).spans or 0 for message in messages) == 3
    assert sink.tally.too_large == 1


def spans(data: bytes) -> list[object]:
    """Each with what stands above it."""
    return [
        (
            of.resource.SerializeToString(),
            of.schema_url,
            under.scope.SerializeToString(),
            under.schema_url,
            one.SerializeToString(),
        )
        for of in ExportTraceServiceRequest.FromString(data).resource_spans
        for under in of.scope_spans
        for one in under.spans
    ]


@st.composite
def requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    text = st.text(max_size=20)
    for _ in range(draw(st.integers(0, 3))):
        of = made.resource_spans.add(schema_url=draw(text))
        of.resource.attributes.add(key=draw(text)).value.string_value = draw(text)
        for _ in range(draw(st.integers(0, 3))):
            under = of.scope_spans.add(schema_url=draw(text))
            under.scope.name = draw(text)
            for size in draw(st.lists(st.integers(0, 300), max_size=6)):
                under.spans.add(name="x" * size)
    return made


@given(requests(), st.integers(60, 1_000))
def test_pieces_hold_what_the_payload_held(made: ExportTraceServiceRequest, most: int) -> None:
    data = made.SerializeToString()
    pieces = cut(data, most)
    assert all(len(piece.data) <= most for piece in pieces.fitting)
    assert [len(spans(piece.data)) for piece in pieces.fitting] == [piece.spans for piece in pieces.fitting]
    kept = [one for piece in pieces.fitting for one in spans(piece.data)]
    every = spans(data)
    assert len(kept) + pieces.too_large == len(every)
    left = iter(every)
    assert all(one in left for one in kept), "in their order"
    assert most < 900 or pieces.too_large == 0


def test_what_a_stopped_broker_leaves_is_spooled_and_comes_first(broker: Broker, topic: str, tmp_path: Path) -> None:
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
        acknowledged(submit(sink, 0, 10))
        broker.pause()
        try:
            began = time.monotonic()
            acknowledged(submit(sink, 10, 20))
            assert time.monotonic() - began > PATIENCE_S - 0.5, "the broker had its time"
            acknowledged(submit(sink, 20, 30))
            assert sink.tally.spooled == 20
            assert sink.ready() == ""
        finally:
            broker.resume()
        acknowledged(submit(sink, 30, 40))
        until(lambda: sink.direct)
        acknowledged(submit(sink, 40, 50))
        assert sink.tally.drained == sink.tally.spooled
    # Of what was under way when it stopped some may have come twice.
    assert arrived(broker.messages(topic)) == list(range(50))


def test_nothing_overtakes_the_spool_while_it_drains_under_load(broker: Broker, topic: str, tmp_path: Path) -> None:
    with sinking(at("127.0.0.1:1"), topic, tmp_path) as sink:
        acknowledged(submit(sink, 0, 600, 20_000))
    with sinking(at(broker.address), topic, tmp_path) as sink:
        futures = []
        for number in range(600, 1_200):
            futures.append(sink.submit(item(number, 20_000)))
            time.sleep(0.001)
        acknowledged(futures)
        until(lambda: sink.direct)
        assert sink.tally.drained == 600 + sink.tally.spooled
    assert arrived(broker.messages(topic)) == list(range(1_200))


def test_without_the_topic_it_is_spooled_and_said(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "CONNECT_MS", 1_000)
    with sinking(at(broker.address), "not-yet", tmp_path) as sink:
        acknowledged(submit(sink, 0, 3))
        until(lambda: "no broker knows of topic not-yet: tallystick migrate makes it" in sink.tally.last_failure)
        assert ensure_topics(at(broker.address), "not-yet", "dead", partitions=2) == [
            "made topic not-yet with 2 partitions",
            "made topic dead with 1 partition",
        ]
        until(lambda: sink.direct)
    assert sorted(arrived(broker.messages("not-yet"))) == [0, 1, 2]
    assert ensure_topics(at(broker.address), "not-yet", "dead", partitions=3) == ["gave topic not-yet 1 more partitions, 3 now"]
    assert ensure_topics(at(broker.address), "not-yet", "dead", partitions=1) == []
    with pytest.raises(ValueError, match="InvalidReplicationFactor"):
        ensure_topics(at(broker.address), "other", "dead", replication=3)


def test_memory_and_disk_are_bounded(tmp_path: Path) -> None:
    """kafka-python itself takes in whatever it is given."""
    with sinking(at("127.0.0.1:1"), "t", tmp_path, spool_bytes=2 << 20, max_bytes=4 << 20) as sink:
        kept, full = 0, 0
        for number in range(100):
            try:
                sink.submit(item(number, 300_000)).result(60)
                kept += 1
            except Full:
                full += 1
        assert 5 <= kept <= 7
        assert full == 100 - kept
        assert "the spool or its disk is full" in sink.ready()
        assert sink.tally.handed_back == full
        assert sink.waiting == (0, 0)
        most = 0
        for number in range(300):
            with suppress(Full):
                sink.submit(item(number, 300_000))
            most = max(most, sink.waiting[1])
        assert 300_000 < most <= 4 << 20


def test_a_message_that_no_broker_takes_holds_up_nothing(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.configure(topic, {"max.message.bytes": "20000"})
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
        acknowledged([sink.submit(item(number, 100_000 if number % 7 == 3 else 100)) for number in range(20)])
        until(lambda: sink.tally.refused == 3 and sink.direct)
        acknowledged(submit(sink, 20, 22))
    assert arrived(broker.messages(topic)) == [number for number in range(22) if number % 7 != 3]
    broker.configure(topic, {"max.message.bytes": "1048588"})
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
    assert arrived(broker.messages(topic))[-3:] == [3, 10, 17]


@pytest.fixture
def mocked() -> Iterator[MockCluster]:
    cluster = MockCluster(brokers=1)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("code", [10, 29, 87, 2, 60, 32, 19, 45])
def test_a_refusal_poisons_nothing(code: int, mocked: MockCluster, tmp_path: Path) -> None:
    """A producer that was refused once fails for ever: after error 10 so did all the messages after it."""
    topic = f"t{code}"
    mocked.create_topic(topic, 1)
    brokers = kafka.Brokers((mocked.bootstrap,), {"api_version": (2, 3)})  # type: ignore[dict-item]
    spool = Spool(tmp_path, 1 << 28)
    sink = KafkaSink(brokers, topic, spool)
    sink.start()
    until(lambda: sink.direct)
    acknowledged(submit(sink, 0, 3))
    mocked.push_errors(PRODUCE, *[code] * 2)
    acknowledged(submit(sink, 3, 6))
    acknowledged(submit(sink, 6, 9))
    until(lambda: sink.direct)
    acknowledged(submit(sink, 9, 12))
    refused = spool.waiting.refused
    sink.close()
    spool.close()
    # The mock refuses without a look at the message: what it calls too large is kept for the next start.
    assert refused <= (2 if code in {10, 87, 32} else 0)
    again = Spool(tmp_path, 1 << 28)
    assert again.waiting.messages == refused
    again.close()
    assert sink.tally.sent + sink.tally.drained + refused == 12


def test_a_slow_broker_is_given_time_for_what_is_on_disk(
    mocked: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sink, "PATIENCE_S", 0.5)
    mocked.create_topic("slow", 1)
    brokers = kafka.Brokers((mocked.bootstrap,), {"api_version": (2, 3)})  # type: ignore[dict-item]
    with sinking(brokers, "slow", tmp_path) as sink:
        until(lambda: sink.direct)
        mocked.slow(1, 1_000)
        acknowledged(submit(sink, 0, 5))
        assert sink.tally.spooled == 5
        until(lambda: sink.tally.drained == 5)
        mocked.slow(1, 0)
        until(lambda: sink.direct)
        acknowledged(submit(sink, 5, 10))
        assert sink.tally.last_failure.startswith("no acknowledgement for")


def test_being_turned_away_is_told_apart_from_a_plain_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "CONNECT_MS", 200)
    for security, told in [
        ({}, "KafkaTimeoutError"),
        ({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}, "doesn't take the user, password"),
    ]:
        user = {"sasl_plain_username": "u", "sasl_plain_password": "the-password"} if security else {}
        with pytest.raises(NoBroker, match=told) as raised:
            connect(kafka.Brokers(("127.0.0.1:1",), security | user), "t")
        assert "the-password" not in str(raised.value)


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_kafka_sink import at, item
from tallystick.ingest.kafka_sink import KafkaSink
from tallystick.ingest.spool import Spool
spool = Spool(Path(sys.argv[4]), 1 << 28)
sink = KafkaSink(at(sys.argv[2]), sys.argv[3], spool)
sink.start()
number = int(sys.argv[5])
while True:
    futures = [sink.submit(item(one, 10_000)) for one in range(number, number + 20)]
    for future in futures:
        future.result(60)
        print(number, flush=True)
        number += 1
"""


def test_a_killed_process_loses_nothing_that_it_acknowledged(broker: Broker, topic: str, tmp_path: Path) -> None:
    """While it sends, while it spools and while it drains, by turns."""
    told = -1
    for round_ in range(8):
        if round_ % 4 == 1:
            broker.pause()
        command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), broker.address, topic, str(tmp_path), str(told + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=CLEAN)
        assert process.stdout is not None
        # What the paused broker left is drained in the fourth round, which ends in the midst of that.
        stop_at = told + (1 if round_ % 4 == 3 else 300 + 37 * round_)
        for line in process.stdout:
            told = int(line)
            if told >= stop_at and process.poll() is None:
                time.sleep(0.03 * round_ if round_ % 4 == 3 else 0)
                process.send_signal(signal.SIGKILL)
        process.wait()
        if round_ % 4 == 2:
            broker.resume()
    with sinking(at(broker.address), topic, tmp_path) as sink:
        until(lambda: sink.direct)
    found = arrived(broker.messages(topic))
    assert len(found) > told
    assert found == list(range(len(found)))


def test_a_lost_broker_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Two of three must have a message; the leader is killed while hundreds are under way, and comes back."""
    with Brokers(tmp_path / "brokers") as three:
        brokers = at(*three.addresses)
        until(partial(_made, brokers))
        with sinking(brokers, "replicated", tmp_path / "data") as sink:
            until(lambda: sink.direct)
            futures: list[Future[Outcome]] = []
            stop = threading.Event()

            def send() -> None:
                while not stop.is_set():
                    futures.append(sink.submit(item(len(futures), 5_000)))
                    stop.wait(0.001)

            sender = threading.Thread(target=send)
            sender.start()
            until(lambda: sink.tally.sent > 200)
            killed = three.all[three.all[0].leader("replicated") - 1]
            killed.kill()
            before = sink.tally.sent + sink.tally.drained
            until(lambda: sink.direct and sink.tally.sent + sink.tally.drained > before + 200)
            stop.set()
            sender.join()
            acknowledged(futures)
            until(lambda: sink.direct)
        left = next(broker for broker in three.all if broker is not killed)
        assert set(arrived(left.messages("replicated"))) == set(range(len(futures)))


def _made(brokers: kafka.Brokers) -> bool:
    try:
        return ensure_topics(brokers, "replicated", "dead", partitions=1, replication=3) is not None
    except (NoBroker, ValueError):
        return False
