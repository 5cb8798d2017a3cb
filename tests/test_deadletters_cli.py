"""`tallystick deadletters`: told without contents, sent back once, whoever reads them then."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import otlp
import pytest
from broker import Broker
from click.testing import CliRunner, Result
from consuming import POISON, Shelf, Topic, running, until

from tallystick.cli import cli


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture(scope="module")
def topic(broker: Broker) -> Topic:
    """Two payloads that a stand-in for the engine couldn't read, and one of JSON."""
    topic = Topic(broker, "letters")
    bad = [otlp.request(otlp.span(f"{POISON}{n}"), resource={POISON: "secret"}).SerializeToString() for n in range(2)]
    topic.send([*bad, b'{"secret": 1}'])
    consumer = topic.consumer(Shelf)
    with running(consumer):
        until(lambda: consumer.tally.messages == 3)
    return topic


def run(topic: Topic, *arguments: str, broker: str = "") -> Result:
    env = {"TALLYSTICK_KAFKA": broker or topic.broker.address, "TALLYSTICK_KAFKA_DEAD_LETTERS": topic.dead}
    return CliRunner().invoke(cli, ["deadletters", *arguments], env=env)


def listed(topic: Topic, *arguments: str) -> list[dict[str, Any]]:
    answer = run(topic, "list", "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    rows: list[dict[str, Any]] = json.loads(answer.stdout)
    return rows


def test_letters_are_listed_by_reason_topic_and_time(topic: Topic) -> None:
    rows = listed(topic)
    assert sorted(row["reason"] for row in rows) == ["malformed", "unreadable", "unreadable"]
    assert {row["tenant"] for row in rows} == {"letters"}
    assert len(listed(topic, "--reason", "unreadable")) == 2
    assert not listed(topic, "--topic", topic.others)
    assert not listed(topic, "--since", "2100-01-01")
    assert len(listed(topic, "--since", "2026-01-01")) == 3
    table = run(topic, "list")
    assert rows[0]["from"] in table.output
    assert "secret" not in table.output


def test_one_is_shown_by_either_coordinates_without_its_contents(topic: Topic, tmp_path: Path) -> None:
    row = listed(topic, "--reason", "unreadable")[0]
    for coordinates in (row["from"], row["letter"]):
        answer = run(topic, "show", coordinates, "--save", str(tmp_path / "message"))
        assert answer.exit_code == 0, answer.output
        assert "'tests': 1" in answer.output
        assert "secret" not in answer.output
        assert POISON.encode() in (tmp_path / "message").read_bytes()
    assert run(topic, "show", f"{topic.received}/9/9").exit_code == 1
    assert run(topic, "show", "nonsense").exit_code == 2


def test_a_broken_one_is_shown_with_what_is_wrong(topic: Topic) -> None:
    (row,) = listed(topic, "--reason", "malformed")
    (shown,) = json.loads(run(topic, "show", "--json", row["from"]).stdout)
    assert "JSON" in shown["detail"]
    assert shown["problem"]
    assert "secret" not in json.dumps(shown)


def test_replayed_once_and_as_they_were(topic: Topic) -> None:
    before = topic.broker.messages(topic.received)
    dry = run(topic, "replay", "--reason", "unreadable", "--dry-run")
    assert "2 messages would be sent" in dry.output
    assert topic.broker.messages(topic.received) == before
    done = json.loads(run(topic, "replay", "--reason", "unreadable", "--json").stdout)
    assert done == [{"messages": 2, "topics": {topic.received: 2}, "repeated": 0, "without_value": 0}]
    after = topic.broker.messages(topic.received)
    for message in before:
        expected = 2 if POISON.encode() in message.value else 1
        assert after.count(message) == expected
    # They are as bad as before, and come back; each counts once then.
    consumer = topic.consumer(Shelf)
    with running(consumer):
        until(lambda: consumer.tally.messages == 2)
    assert len(listed(topic, "--reason", "unreadable")) == 4
    one = listed(topic, "--reason", "unreadable")[0]["from"]
    assert json.loads(run(topic, "replay", one, "--json").stdout)[0]["messages"] == 1


def test_wrong_use_and_no_broker(topic: Topic) -> None:
    assert run(topic, "replay").exit_code == 2
    assert run(topic, "replay", "a/0/0", "--reason", "malformed").exit_code == 2
    topic.dead, dead = "no.such.topic", topic.dead
    answer = run(topic, "list")
    topic.dead = dead
    assert answer.exit_code == 1
    assert "no topic" in answer.output
