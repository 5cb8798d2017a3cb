"""What a guard knows of a server's budgets between two answers, and what it takes a call for."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.collectors.calls.request import Request, Usage
from tallystick.collectors.guard import worst_case
from tallystick.collectors.guard.accounts import Account, Amount
from tallystick.collectors.guard.budgets import _OWN_STEPS, BudgetAccount, Budgets, NoAnswer, Standing, read
from tallystick.collectors.guard.polling import MARGIN_S, Answer, Poller
from tallystick.collectors.guard.pricing import Rates
from tallystick.collectors.tokens import count_request
from tallystick.estimating import rates

END = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
NOW = END - 86_400


def told(**budget: Any) -> dict[str, Any]:
    return {
        "name": "acme", "measure": "cost", "limit": "100", "scope": {"customer": ["acme"]}, "each": None,
        "period": {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z", "label": "2026-11"},
        "values": [{"value": "", "spent": "40", "exhausted": False}], "values_total": 1,
    } | budget  # fmt: skip


def standings(*budgets: dict[str, Any]) -> tuple[Standing, ...]:
    return read(json.dumps({"budgets": budgets}).encode())


def request(model: str = "gpt-5", library: str = "openai", operation: str = "chat", body: Any = None, **scope: str) -> Request:
    given = {f"tallystick.{name}": value for name, value in scope.items()}
    return Request(library, operation, model, {"model": model, **(body or {})}, False, "api.example", given)


def spent(budgets: Budgets, asked: Request, now: float, name: str = "*") -> dict[str, Decimal]:
    return {
        f"{standing.name}:{value}": next(iter(account.spent.values()))
        for standing, value, account in budgets.held_against(name, asked, now)
    }


def account(budgets: Budgets, asked: Request, now: float) -> Account:
    ((_, _, found),) = budgets.held_against("*", asked, now)
    return found


def usd(much: str) -> Amount:
    return Amount(Decimal(much), 1)


def test_what_ended_here_counts_until_the_server_tells_of_it() -> None:
    budgets, asked = Budgets(), request(customer="acme")
    budgets.hear(standings(told()), NOW)
    account(budgets, asked, NOW + 1).spend(usd("1"), NOW + 1)
    account(budgets, asked, NOW + 5).spend(usd("2"), NOW + 5)
    assert spent(budgets, asked, NOW + 6) == {"acme:": 43}
    # The next answer has the first, not yet the second.
    budgets.hear(standings(told(values=[{"value": "", "spent": "41", "exhausted": False}])), NOW + 3)
    assert spent(budgets, asked, NOW + 7) == {"acme:": 43}
    budgets.hear(None, NOW + 8)
    assert spent(budgets, asked, NOW + 9) == {"acme:": 41}, "unchanged is an answer, too"


def test_a_period_begins_before_the_server_tells_of_it() -> None:
    budgets, asked = Budgets(), request(customer="acme")
    budgets.hear(standings(told()), NOW)
    account(budgets, asked, END - 2).spend(usd("1"), END - 2)
    assert spent(budgets, asked, END - 1) == {"acme:": 41}
    account(budgets, asked, END - 1).spend(usd("7"), END + 1)
    assert spent(budgets, asked, END + 2) == {"acme:": 7}


@given(
    st.lists(
        st.tuples(st.sampled_from(["spend", "hear", "reserve", "settle", "expire"]), st.integers(0, 20), st.floats(0, 4)),
        max_size=60,
    )
)
def test_no_call_is_counted_twice_or_left_out(steps: list[tuple[str, int, float]]) -> None:
    """Against a server that stores each call when it ends, and answers after it has been asked."""
    budgets, asked, now = Budgets(), request(customer="acme"), NOW
    budgets.hear(standings(told(values=[{"value": "", "spent": "0", "exhausted": False}])), NOW)
    stored = Decimal(0)
    for what, much, seconds in steps:
        now += seconds
        if what == "spend":
            account(budgets, asked, now).spend(usd(str(much)), now)
            stored += much
        elif what == "hear":
            budgets.hear(standings(told(values=[{"value": "", "spent": str(stored), "exhausted": False}])), now)
        elif what == "expire":
            # A call that ends long after its reservation has expired: nothing of it is stored before.
            late = account(budgets, asked, now)
            late.spend(usd("5"), now)
            late.take_back(usd("5"), now)
        assert spent(budgets, asked, now) == {"acme:": stored}


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=3 * _OWN_STEPS))
def test_a_server_that_is_away_costs_no_memory(calls: list[tuple[float, int]]) -> None:
    kept, now = BudgetAccount("usd", Decimal(100)), NOW
    for seconds, much in calls:
        now += seconds
        kept.spend(usd(str(much)), now)
        assert len(kept._own) <= _OWN_STEPS
    assert kept.spent["usd"] == sum(much for _, much in calls)


def test_which_budgets_a_call_counts_towards() -> None:
    budgets = Budgets()
    budgets.hear(
        standings(
            told(name="all", scope={}),
            told(name="acme or globex", scope={"customer": ["acme", "globex"]}),
            told(name="search of acme", scope={"feature": ["search"], "customer": ["acme"]}),
            told(name="nobody's", scope={"customer": [""]}),
            told(name="a tag", scope={"tag:plan": ["free"]}),
            told(name="a model", scope={"model": ["gpt-5-2025-08-07"]}),
            told(name="a provider", scope={"provider": ["anthropic"]}),
            told(name="a service", scope={"service": ["shop"]}),
            told(name="each agent", scope={}, each="agent", values=[{"value": "a", "spent": "3", "exhausted": False}]),
            told(name="each service", scope={}, each="service"),
        ),
        NOW,
    )

    def names(asked: Request) -> set[str]:
        return {standing.name for standing, _, _ in budgets.held_against("*", asked, NOW)}

    assert names(request(customer="acme", feature="search")) == {
        "all", "acme or globex", "search of acme", "a model", "each agent",
    }  # fmt: skip
    assert names(request("claude", "anthropic", **{"tag.plan": "free"})) == {
        "all", "nobody's", "a tag", "a provider", "each agent",
    }  # fmt: skip
    # By its name, also where nobody knows before the call is answered.
    assert [one.name for one, _, _ in budgets.held_against("a service", request(), NOW)] == ["a service"]
    assert budgets.held_against("each service", request(), NOW) == []
    assert spent(budgets, request(agent="a"), NOW, "each agent") == {"each agent:a": 3}
    assert spent(budgets, request(agent="b"), NOW, "each agent") == {"each agent:b": 0}


def test_values_that_are_not_told_have_spent_no_more_than_those_that_are() -> None:
    budgets = Budgets()
    values = [{"value": "a", "spent": "90", "exhausted": False}, {"value": "b", "spent": "5", "exhausted": True}]
    budgets.hear(standings(told(scope={}, each="customer", values=values, values_total=7)), NOW)
    assert [spent(budgets, request(customer=name), NOW) for name in "abc"] == [{"acme:a": 90}, {"acme:b": 100}, {"acme:c": 90}]


@pytest.mark.parametrize("wrong", [b"", b"[]", b"{}", b'{"budgets": [{}]}', json.dumps({"budgets": [told(limit="x")]}).encode()])
def test_an_answer_that_is_none(wrong: bytes) -> None:
    with pytest.raises(NoAnswer, match="not an answer of /v1/guard"):
        read(wrong)


class Queue:
    """Spans of this process, which go out when `done` is told."""

    def __init__(self) -> None:
        self.put = self.done = 0

    def put_and_done(self) -> tuple[int, int]:
        self.done = self.put
        return self.put, self.done


def polled(fetch: Callable[[str], Answer], until: Callable[[Poller, Budgets], bool]) -> tuple[Poller, Budgets]:
    budgets = Budgets()
    poller = Poller(budgets, lambda: fetch, Queue(), 0.01)
    poller.start()
    poller.start()
    assert sum(thread.name == "tallystick-guard" for thread in threading.enumerate()) >= 1
    for _ in range(1000):
        if until(poller, budgets):
            return poller, budgets
        threading.Event().wait(0.01)
    raise AssertionError(poller.trouble)


def test_polling_goes_on_through_trouble_and_by_etag() -> None:
    asked: list[str] = []

    def fetch(etag: str) -> Answer:
        asked.append(etag)
        answers: list[Answer | Exception] = [
            ConnectionError("no"),
            Answer(503, b"", "", 0),
            Answer(200, b"nonsense", "", 0),
            Answer(200, json.dumps({"budgets": [told()]}).encode(), '"1"', 0),
        ]
        if len(asked) > len(answers):
            return Answer(304, b"", '"1"', 2.0)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    poller, budgets = polled(fetch, lambda poller, budgets: budgets.heard is not None and budgets.heard.number > 2)
    assert asked[:5] == ["", "", "", "", '"1"']
    assert poller.trouble == ""
    assert budgets.heard is not None
    assert budgets.heard.standings == standings(told())
    assert poller.since is not None
    assert poller.since - 2.5 <= budgets.heard.until <= poller.since + 1 - MARGIN_S, "an answer that has stood for two seconds"


TEXT = st.text(max_size=200)
CONTENT = TEXT | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=3)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": CONTENT}), max_size=5
)


@given(MESSAGES, st.sampled_from(["gpt-4o", "gpt-5", "claude-haiku-4-5", "gemini-2.5-pro"]))
def test_the_bound_is_one(messages: Any, model: str) -> None:
    asked = request(model, body={"messages": messages})
    assert worst_case.bounded(asked).input_tokens >= count_request(model, asked.body, "chat").tokens
    assert worst_case.counted(asked).input_tokens <= worst_case.bounded(asked).input_tokens


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(),
        lambda x: st.lists(x) | st.dictionaries(TEXT, x),
        max_leaves=20,
    )
)
def test_any_body_has_a_worst_case(part: Any) -> None:
    asked = request(body={"messages": part, "max_tokens": part, "n": part})
    assert worst_case.bounded(asked).input_tokens >= 0
    assert worst_case.most_output(asked) >= 0


@pytest.mark.parametrize(
    ("body", "operation", "most"),
    [
        ({}, "chat", worst_case.UNLIMITED),
        ({"max_tokens": 7}, "chat", 7),
        ({"max_completion_tokens": 7, "n": 3}, "chat", 21),
        ({"max_output_tokens": 9}, "responses", 9),
        ({"max_tokens": None}, "chat", worst_case.UNLIMITED),
        ({"max_tokens": True}, "chat", worst_case.UNLIMITED),
        ({"inferenceConfig": {"maxTokens": 5}}, "converse", 5),
        ({"config": {"max_output_tokens": 5, "candidate_count": 2}}, "generate_content", 10),
        ({"input": "x"}, "embeddings", 0),
    ],
)
def test_the_most_that_may_be_answered(body: Any, operation: str, most: int) -> None:
    assert worst_case.most_output(request(operation=operation, body=body)) == most


def known(model: str) -> Rates:
    found = rates(model)
    assert found is not None
    return found


def test_input_that_is_written_to_a_cache_costs_what_that_costs() -> None:
    marked: Any = {"cache_control": {"type": "ephemeral"}, "type": "text", "text": "x"}
    hour: Any = {**marked, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    of = known("claude-haiku-4-5")
    worst = worst_case.WorstCase(1000, 100, True)
    for part, rate in (("x", of.input), ([marked], of.cache_write_5m), ([hour], of.cache_write_1h)):
        asked = request("claude-haiku-4-5", "anthropic", "messages", {"messages": [{"role": "user", "content": part}]})
        assert worst.amount(asked, of).usd == 1000 * rate + 100 * of.output
    assert of.input < of.cache_write_5m < of.cache_write_1h


@given(*(st.integers(0, 10_000) for _ in range(3)), st.sampled_from(["gpt-4o", "claude-haiku-4-5", "gemini-2.5-pro"]))
def test_no_call_costs_more_than_it_was_taken_for(input_tokens: int, read: int, output: int, model: str) -> None:
    of, read = known(model), min(read, input_tokens)
    worst = worst_case.WorstCase(input_tokens, output, True)
    usage = Usage(input_tokens - read, read, 0, 0, output, 0, "provider")
    most, took = worst.amount(request(model), of), worst_case.taken(usage, worst, of)
    assert took.usd is not None
    assert most.usd is not None
    assert took.usd <= most.usd + Decimal("1e-12")
    assert took.tokens == most.tokens


def test_what_a_usage_does_not_tell_is_taken_for_the_worst() -> None:
    worst, of = worst_case.WorstCase(1000, 100, True), known("gpt-4o")
    took = worst_case.taken(Usage(None, None, None, None, 20, None, "partial"), worst, of)
    assert (took.tokens, took.usd) == (1020, 1000 * of.input + 20 * of.output)
    assert worst_case.taken(Usage(0, 0, 0, 0, 0, 0, "none"), worst, of) == Amount(Decimal(0), 0)
    assert worst_case.taken(Usage(5, 0, 0, 0, 5, 0, "provider"), worst, None) == Amount(None, 10)
