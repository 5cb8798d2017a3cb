"""Rules in the composed alerter: found, said once, over, said once more; whatever happens to the process in between."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tallystick.alerts.config import Config, load_config
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Kind
from tallystick.alerts.tick import Evaluator

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = """
channels: {team: {type: stdout}}
rules:
  - {name: prices, type: unpriced, each: customer, at_most_percent: 5, notify: [team]}
"""


class Charges:
    """Answers the rule's one query: tokens and unpriced tokens of each customer."""

    def __init__(self) -> None:
        self.unpriced: dict[str, int] = {}
        self.down = False

    def __call__(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        if self.down:
            raise TimeoutError("the engine doesn't answer")
        return [(name, 100_000, tokens, ["some-model"]) for name, tokens in self.unpriced.items()]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'alerts.db'}") as ledger:
        yield ledger


def evaluator(ledger: Ledger, charges: Charges, config: Config | None = None) -> Evaluator:
    return Evaluator(ledger, charges, config or load_config(RULES, {}), holder="one", author="test")


def told(ledger: Ledger) -> list[tuple[Kind, str]]:
    """What was said, the oldest first."""
    entries = ledger.journal.entries(100)
    return [(entry.message.kind, entry.value) for entry in reversed(entries) if entry.message]


def test_said_once_and_once_when_it_is_over(ledger: Ledger) -> None:
    charges = Charges()
    watching = evaluator(ledger, charges)
    charges.unpriced = {"acme": 50_000, "zeta": 0}
    for minute in range(5):
        watching.tick(NOON + minute * MINUTE)
    assert told(ledger) == [(Kind.RULE, "acme")]
    charges.unpriced = {"acme": 0, "zeta": 0}
    for minute in range(5, 10):
        watching.tick(NOON + minute * MINUTE)
    assert told(ledger) == [(Kind.RULE, "acme"), (Kind.RESOLVED, "acme")]


def test_a_restart_knows_what_is_open(ledger: Ledger) -> None:
    charges = Charges()
    charges.unpriced = {"acme": 50_000}
    evaluator(ledger, charges).tick(NOON)
    evaluator(ledger, charges).tick(NOON + MINUTE)
    assert told(ledger) == [(Kind.RULE, "acme")]
    # Over while nobody looked, even the day after, when the window is another one.
    charges.unpriced = {}
    evaluator(ledger, charges).tick(NOON + timedelta(days=2))
    assert told(ledger) == [(Kind.RULE, "acme"), (Kind.RESOLVED, "acme")]


def test_it_may_come_again(ledger: Ledger) -> None:
    charges = Charges()
    watching = evaluator(ledger, charges)
    for day, unpriced in enumerate((50_000, 0, 50_000, 0)):
        charges.unpriced = {"acme": unpriced}
        watching.tick(NOON + timedelta(days=day))
    assert told(ledger) == [(Kind.RULE, "acme"), (Kind.RESOLVED, "acme")] * 2


def test_within_its_window_it_is_said_once_however_often_it_comes_and_goes(ledger: Ledger) -> None:
    charges = Charges()
    watching = evaluator(ledger, charges)
    for minute in range(60):
        charges.unpriced = {"acme": 50_000 * (minute % 2)}
        watching.tick(NOON + minute * MINUTE)
    assert told(ledger) == [(Kind.RULE, "acme"), (Kind.RESOLVED, "acme")]


def test_a_look_that_fails_ends_nothing_and_holds_up_no_budget(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    charges = Charges()
    watching = evaluator(ledger, charges)
    charges.unpriced = {"acme": 50_000}
    watching.tick(NOON)
    charges.down = True
    for minute in range(1, 5):
        assert watching.tick(NOON + minute * MINUTE) is not None
    assert told(ledger) == [(Kind.RULE, "acme")]
    assert sum("can't be looked at" in record.message for record in caplog.records) == 1


def test_the_message_of_the_end_belongs_to_that_of_the_beginning(ledger: Ledger) -> None:
    """PagerDuty closes the incident by subject, period and value; threads go by them, too."""
    charges = Charges()
    watching = evaluator(ledger, charges)
    for day, unpriced in enumerate((50_000, 0)):
        charges.unpriced = {"acme": unpriced}
        watching.tick(NOON + timedelta(days=day))
    end, begin = (entry.message.key for entry in ledger.journal.entries(10) if entry.message)
    assert (begin.subject, begin.period_start, begin.value) == (end.subject, end.period_start, end.value)


def test_what_cannot_be_judged_is_said_once(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    class Runs(Charges):
        def __call__(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
            return [("llama", "f32", 1, "run-1", 0, "poisson 4/s", 20.0, 19.0, 21.0)]

    text = "channels: {team: {type: stdout}}\nrules:\n  - {name: slower, type: probe_regression, notify: [team]}\n"
    watching = evaluator(ledger, Runs(), load_config(text, {}))
    for minute in range(3):
        watching.tick(NOON + minute * MINUTE)
    said = [record.message for record in caplog.records if "slower" in record.message]
    assert said == ["rule slower: llama f32: 0 of the 5 comparable runs that it is to be held against: not judged yet"]
    assert told(ledger) == []
