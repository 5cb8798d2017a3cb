"""Kafka to the ledger through a real broker: everything once, whatever is away, wrong, or taken from a consumer when."""

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import otlp
import pytest
from broker import Broker
from consuming import POISON, Shelf, Topic, running, until
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import TopicPartition

from tallystick.ingest.ceiling import Ceiling
from tallystick.ingest.consumer import _STABLE, CeilingReached, Fenced
from tallystick.ingest.entering import backoff_s
from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.writer import Item, Written

START = time.time_ns() - 60_000_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest) -> Topic:
    name: str = request.node.name
    return Topic(broker, name.replace("[", ".").rstrip("]")[:100])


def payload(name: object, **attributes: Any) -> bytes:
    return otlp.request(otlp.span(f"{name}", start_ns=START), resource=attributes).SerializeToString()


def payloads(count: int, first: int = 0) -> list[bytes]:
    return [payload(number) for number in range(first, first + count)]


def test_everything_is_taken_once_and_committed(topic: Topic) -> None:
    shelf, sent = Shelf(), payloads(300)
    topic.send(sent)
    topic.send(payloads(50, 300), topic=topic.others, headers=[])
    consumer = topic.consumer(lambda: shelf, max_spans=40)
    with running(consumer):
        until(lambda: consumer.tally.messages == 350)
        until(lambda: sum(consumer.lag().values()) == 0 and consumer.lag())
        assert consumer.ready() == ""
        assert consumer.freshness_s() is not None
    assert sorted(shelf.taken) == sorted([*sent, *payloads(50, 300)])
    assert max(shelf.batches) <= 40
    assert topic.committed() == 350
    assert (consumer.tally.spans, consumer.tally.entered, consumer.tally.failures) == (350, 350, 0)


def test_what_was_gathered_is_entered_and_committed_at_the_end(topic: Topic) -> None:
    shelf = Shelf()
    consumer = topic.consumer(lambda: shelf, window_s=1000.0)
    topic.send(payloads(20))
    with running(consumer):
        until(lambda: len(consumer._gathering) == 20)
        assert not shelf.taken
    assert len(shelf.taken) == 20
    assert topic.committed() == 20


def test_nothing_is_skipped_while_the_store_is_away(topic: Topic) -> None:
    shelf = Shelf()
    shelf.there.clear()
    consumer = topic.consumer(lambda: shelf, max_spans=10)
    topic.send(payloads(100))
    with running(consumer):
        until(lambda: consumer.tally.failures >= 3)
        assert consumer.ready() == "NETWORK_ERROR"
        # No more is held than is gathered and written, and the group has lost nobody.
        assert len(consumer._gathering) < 100
        time.sleep(7)
        assert consumer.tally.rebalances == 1
        assert topic.committed() == 0
        topic.send(payloads(10, 100))
        shelf.there.set()
        until(lambda: consumer.tally.messages == 110)
        until(lambda: not consumer.ready())
    assert sorted(shelf.taken) == sorted(payloads(110))
    assert topic.committed() == 110


def test_a_store_that_stays_away_keeps_nobody_from_ending(topic: Topic) -> None:
    shelf = Shelf()
    shelf.there.clear()
    consumer = topic.consumer(lambda: shelf)
    topic.send(payloads(10))
    consumer.start()
    until(lambda: consumer.tally.failures >= 1)
    consumer.close(drain_s=0.5)
    assert consumer.ended.is_set()
    assert topic.committed() == 0
    shelf.there.set()
    successor = topic.consumer(lambda: shelf)
    with running(successor):
        until(lambda: len(shelf.taken) == 10)


def test_a_store_that_isnt_there_at_the_start_is_waited_for(topic: Topic) -> None:
    shelf, attempts = Shelf(), []

    def writer() -> Shelf:
        attempts.append(1)
        if len(attempts) < 3:
            raise StoreUnavailable("NETWORK_ERROR")
        return shelf

    topic.send(payloads(5))
    with running(topic.consumer(writer)):
        until(lambda: len(shelf.taken) == 5)


def test_a_poisonous_message_is_found_and_the_partition_moves_on(topic: Topic) -> None:
    shelf = Shelf()
    good = payloads(60)
    bad = payload(POISON, **{POISON: "secret prompt"})
    topic.send([*good[:30], bad, *good[30:]])
    consumer = topic.consumer(lambda: shelf)
    with running(consumer):
        until(lambda: consumer.tally.messages == 61)
    assert sorted(shelf.taken) == sorted(good)
    assert topic.committed() == 61
    (dead,) = topic.broker.messages(topic.dead)
    assert dead.value == bad
    assert dead.headers["tallystick-dead-reason"] == b"unreadable"
    assert dead.headers["tallystick-dead-topic"] == topic.received.encode()
    assert dead.headers["tallystick-tenant"] == topic.tenant.encode()
    assert b"secret" not in b"".join(dead.headers.values())
    assert consumer.tally.dead == {"unreadable": 1}


def test_garbage_of_every_kind_is_dead_and_good_messages_go_on(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    shelf, good = Shelf(), payloads(10)
    garbage = [
        b"\xff" * 900_000,
        good[0][:-1],
        b'{"resourceSpans": "secret prompt"}',
        b"\x1f\x8bsecret",
        b"secret prompt",
    ]
    topic.send([*good, *garbage])
    topic.send(good[:1], headers=[])
    topic.send(garbage, topic=topic.others, headers=[("a", b"\xff"), ("tallystick-tenant", b"\xff")])
    topic.send([good[0]], headers=[("tallystick-tenant", b"\xff\x00")])
    consumer = topic.consumer(lambda: shelf)
    with running(consumer), caplog.at_level(logging.INFO):
        until(lambda: consumer.tally.messages == 22)
    assert sorted(shelf.taken) == sorted(good)
    assert topic.committed() == 22
    dead = topic.broker.messages(topic.dead)
    assert sorted(letter.value for letter in dead) == sorted([*garbage, *garbage, good[0], good[0]])
    assert dict(consumer.tally.dead) == {"malformed": 10, "unknown-tenant": 2}
    assert "secret" not in caplog.text


def test_a_message_that_is_rejected_in_part_is_entered_and_kept(topic: Topic) -> None:
    made = otlp.request(otlp.span("good"))
    made.MergeFrom(otlp.request(otlp.span("broken"), resource={"service.name": "%%%%"}))
    broken = made.SerializeToString().replace(b"%%%%", b"\xff\xff\xff\xff")
    shelf = Shelf()
    topic.send([broken])
    consumer = topic.consumer(lambda: shelf)
    with running(consumer):
        until(lambda: consumer.tally.messages == 1)
    (dead,) = topic.broker.messages(topic.dead)
    assert dead.value == broken
    assert dead.headers["tallystick-dead-reason"] == b"partly-rejected"
    assert dead.headers["tallystick-dead-detail"] == b"1 spans: a text is not UTF-8"
    assert consumer.tally.rejected == {"a text is not UTF-8": 1}
    assert (consumer.tally.spans, consumer.tally.entered) == (2, 1)


def test_a_header_whose_name_is_no_text_stops_nobody(topic: Topic) -> None:
    class Name(str):
        def encode(self, encoding: str = "", errors: str = "") -> bytes:
            return b"\xff\xfe"

    shelf = Shelf()
    topic.send(payloads(3), topic=topic.others, headers=[(Name("ab"), b"1"), ("a", b"2")])
    topic.send(payloads(3, 3), topic=topic.others, headers=[])
    with running(topic.consumer(lambda: shelf)):
        until(lambda: len(shelf.taken) == 6)


def test_a_dead_letter_that_its_topic_doesnt_take_stays_where_it_came_from(broker: Broker) -> None:
    topic = Topic(broker, "small")
    broker.make_topic("small.dead.small", {"max.message.bytes": "20000"})
    topic.dead = "small.dead.small"
    garbage = random.Random(1).randbytes(30_000)
    topic.send([b"short", garbage, b"short, too"])
    shelf = Shelf()
    consumer = topic.consumer(lambda: shelf)
    with running(consumer):
        until(lambda: consumer.tally.messages == 3)
    by_left = {letter.headers.get("tallystick-dead-left") for letter in broker.messages(topic.dead)}
    assert by_left == {None, b"30000"}
    assert topic.committed() == 3


def test_dead_letters_that_cant_be_written_hold_everything_up(broker: Broker) -> None:
    topic = Topic(broker, "nowhere")
    dead, topic.dead = topic.dead, "no topic"
    topic.send([b"garbage"])
    shelf = Shelf()
    consumer = topic.consumer(lambda: shelf)
    with running(consumer):
        until(lambda: consumer.tally.failures >= 2)
        assert consumer.ready()
    assert topic.committed() == 0
    topic.dead = dead
    with running(topic.consumer(lambda: shelf)):
        until(lambda: topic.broker.messages(dead))


def test_too_many_dead_letters_stop_the_consumer(topic: Topic) -> None:
    shelf = Shelf()
    topic.send(payloads(5))
    topic.send([b"garbage"] * 30)
    consumer = topic.consumer(lambda: shelf, ceiling=Ceiling(run=10), max_spans=5)
    consumer.start()
    assert consumer.ended.wait(60)
    assert isinstance(consumer.failure, CeilingReached)
    assert "in a row" in consumer.ready()
    # What was dealt with is committed, and all of it: as many are dead, or taken, as are committed.
    consumer.close()
    assert topic.committed() == len(shelf.taken) + len(topic.broker.messages(topic.dead))
    assert len(topic.broker.messages(topic.dead)) >= 10


def test_messages_that_retention_took_are_counted(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    topic.send(payloads(9))
    with running(topic.consumer(lambda: shelf)):
        until(lambda: len(shelf.taken) == 9)
    topic.send(payloads(60, 9))
    admin: Any = KafkaAdminClient(bootstrap_servers=topic.broker.address)
    places = [TopicPartition(topic.received, number) for number in range(3)]
    consumer = topic.consumer(lambda: shelf)
    made: Any = KafkaConsumer
    reader = made(bootstrap_servers=topic.broker.address)
    ends = reader.end_offsets(places)
    reader.close()
    admin.delete_records(ends)
    admin.close()
    topic.send(payloads(30, 69))
    with running(consumer), caplog.at_level(logging.ERROR):
        until(lambda: len(shelf.taken) == 39)
    assert consumer.tally.skipped_messages == 60
    assert "they are lost" in caplog.text


def test_two_of_one_name_dont_fight(topic: Topic) -> None:
    first, second = (topic.consumer(Shelf, name, instance="one") for name in "ab")
    with running(first):
        until(lambda: not first.ready())
        with running(second):
            until(lambda: not second.ready())
            topic.send(payloads(10))
            assert first.ended.wait(60)
    assert isinstance(first.failure, Fenced)
    assert second.failure is None


class Slow(Shelf):
    """Takes its time, and may be held up."""

    def __init__(self, pause_s: float = 0.03) -> None:
        super().__init__()
        self._pause_s = pause_s

    def write(self, items: Sequence[Item]) -> Written:
        time.sleep(self._pause_s)
        return super().write(items)


def test_consumers_come_and_go_under_load(topic: Topic) -> None:
    sent = payloads(1500)
    shelves = [Slow() for _ in range(3)]

    def feed() -> None:
        for at in range(0, len(sent), 50):
            topic.send(sent[at : at + 50])

    feeding = threading.Thread(target=feed)
    feeding.start()
    consumers = [topic.consumer(partial(lambda shelf: shelf, shelf), str(n), max_spans=20) for n, shelf in enumerate(shelves)]
    with running(consumers[0]):
        until(lambda: consumers[0].tally.messages > 100)
        with running(consumers[1]):
            until(lambda: consumers[1].tally.messages > 100)
        with running(consumers[2]):
            feeding.join()
            until(lambda: len({one for shelf in shelves for one in shelf.taken}) == len(sent))
    assert topic.committed() == len(sent)
    assert all(consumer.tally.rebalances for consumer in consumers)


def test_partitions_that_go_while_the_store_is_away_are_the_others_business(topic: Topic) -> None:
    stuck, fine = Shelf(), Shelf()
    stuck.there.clear()
    topic.send(payloads(90))
    first, second = topic.consumer(lambda: stuck, "a", max_spans=5), topic.consumer(lambda: fine, "b")
    with running(first):
        until(lambda: first.tally.failures)
        with running(second):
            until(lambda: fine.taken, 20)
            before = topic.committed()
            assert before <= len(fine.taken)
        stuck.there.set()
        until(lambda: len({*stuck.taken, *fine.taken}) == 90)
    assert topic.committed() == 90


def test_what_is_dealt_with_amid_a_rebalance_is_committed_after_it(topic: Topic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tallystick.ingest.consumer")
    shelf = Shelf()
    shelf.there.clear()
    # In the partitions of both, as it isn't known which of them the consumer keeps.
    topic.send(payloads(30))
    topic.send(payloads(30, 30), topic=topic.others, headers=[])
    consumer = topic.consumer(lambda: shelf)
    made: Any = KafkaConsumer
    with running(consumer):
        until(lambda: consumer.tally.failures and consumer.tally.messages == 0)
        # Joins the group and then says nothing: the group waits for it.
        silent = made(
            topic.received,
            topic.others,
            bootstrap_servers=topic.broker.address,
            group_id=topic.name,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            max_poll_interval_ms=120_000,
        )
        until(lambda: silent.poll(100) or silent.group_metadata().state == _STABLE)
        until(lambda: consumer.ready() == "it is joining its group")
        shelf.there.set()
        until(lambda: "offsets can't be committed now" in caplog.text)
        assert topic.committed() == 0
        silent.close()
        # What stayed with the consumer isn't read again.
        until(lambda: topic.committed() == 60, 30)
    assert "offsets are committed again" in caplog.text


def test_waits_grow_and_differ() -> None:
    waits = [backoff_s(attempt, "a") for attempt in range(1, 20)]
    assert 0.18 < waits[0] < 0.32
    assert 11 < waits[-1] < 19
    assert backoff_s(3, "a") != backoff_s(3, "b")
