"""Circuit breakers: the state machine over any run of calls, and real clients of a provider that fails."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tallystick
from tallystick.collectors.guard.circuit import Circuit, Outcome, Rules
from tallystick.testing import ProviderServer

ASK: Any = [{"role": "user", "content": "x"}]

RULES = Rules(errors=0.5, window_s=30, min_calls=4, open_s=10)

OUTCOMES = st.sampled_from(["good", "bad", "slow", "unknown"])


@given(st.lists(st.tuples(st.floats(0, 15), OUTCOMES, st.integers(0, 3)), max_size=120))
def test_a_circuit_keeps_to_its_rules(calls: list[tuple[float, Outcome, int]]) -> None:
    """Calls begin some time after one another, and end while others are under way."""
    circuit, now = Circuit(RULES), 0.0
    under_way: list[tuple[int, Outcome]] = []
    ended: list[tuple[float, Outcome]] = []
    opened = trial = None
    for seconds, outcome, longer in calls:
        now += seconds
        before = circuit.state
        begun = circuit.allow(now)
        if before == "closed":
            assert begun is not None
        elif begun is not None:
            assert opened is not None
            assert now - opened >= RULES.open_s or trial is None, "a trial after the pause, or after one that told nothing"
            assert circuit.state == "half-open"
            trial, opened = begun, now
        if begun is not None:
            under_way.append((begun, outcome))
        while len(under_way) > longer:
            round, said = under_way.pop(0)
            was, state = circuit.round, circuit.state
            circuit.done(round, said, now)
            if round != was:
                assert (circuit.round, circuit.state) == (was, state), "what began before tells nothing"
                continue
            if state == "half-open":
                assert circuit.state == {"good": "closed", "bad": "open", "slow": "open", "unknown": "half-open"}[said]
                trial = None
                ended.clear()
            elif said != "unknown":
                ended.append((now, said))
                recent = [one for at, one in ended if at > now - RULES.window_s]
                whole = [one for at, one in ended if at > now - RULES.window_s - RULES.window_s / 10]
                if circuit.state == "open":
                    assert len(whole) >= RULES.min_calls
                    assert circuit.reason
                elif len(recent) == len(whole) >= RULES.min_calls:
                    assert sum(one != "good" for one in recent) < len(recent) / 2
            if circuit.state == "open":
                opened = now
                ended.clear()


def test_one_trial_at_a_time_and_the_next_if_it_is_never_heard_of() -> None:
    circuit = Circuit(RULES)
    for _ in range(RULES.min_calls):
        circuit.done(0, "bad", 0.0)
    assert (circuit.state, circuit.reason) == ("open", "of 4 calls in 30 s 4 failed")
    assert circuit.allow(9.9) is None
    assert circuit.retry_after_s(4) == 6
    trial = circuit.allow(10)
    assert trial is not None
    assert circuit.allow(10.1) is None
    again = circuit.allow(20)
    assert again is not None
    circuit.done(trial, "bad", 20.1)
    assert str(circuit.state) == "half-open", "the first was given up"
    circuit.done(again, "good", 20.2)
    assert str(circuit.state) == "closed"


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def gpt(provider: ProviderServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield client


def test_a_provider_that_fails_is_left_alone_until_it_is_tried_again(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    now = [0.0]
    breaker = tallystick.breaker(min_calls=4, open_s=30, clock=lambda: now[0])

    @breaker
    def ask(model: str) -> str:
        return gpt.chat.completions.create(model=model, messages=ASK).model

    for model in ("gpt-429", "gpt-500", "gpt-429", "gpt-500", "gpt-429", "gpt-500", "gpt-429", "gpt-500"):
        with pytest.raises(openai.APIStatusError):
            ask(model)
    with pytest.raises(
        tallystick.CircuitOpen, match="openai gpt-429: of 4 calls in 30 s 4 failed; tried again in 30 s"
    ) as stopped:
        ask("gpt-429")
    assert (stopped.value.circuit, stopped.value.retry_after_s) == ("openai gpt-429", 30)
    assert len(provider.calls) == 8
    ask("gpt-lab")
    now[0] = 31
    with pytest.raises(openai.RateLimitError):
        ask("gpt-429")
    with pytest.raises(tallystick.CircuitOpen, match="a trial failed"):
        ask("gpt-429")
    assert {one.circuit: one.state for one in breaker.standings()} == {
        "openai gpt-429": "open",
        "openai gpt-500": "open",
        "openai gpt-lab": "closed",
    }
    assert len(provider.calls) == 10


def test_bad_requests_tell_nothing_of_the_provider(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    with tallystick.breaker(min_calls=1):
        for _ in range(3):
            with pytest.raises(openai.NotFoundError):
                gpt.with_options(base_url=f"{provider.url}/nowhere").chat.completions.create(model="gpt-lab", messages=ASK)
        gpt.chat.completions.create(model="gpt-lab", messages=ASK)


def test_slow_calls_and_those_without_an_answer(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    times = iter(range(0, 1000, 3))
    with tallystick.breaker(min_calls=2, slow_s=2, clock=lambda: float(next(times))):
        for _ in range(2):
            gpt.chat.completions.create(model="gpt-lab", messages=ASK)
        with pytest.raises(tallystick.CircuitOpen, match="2 were slow"):
            gpt.chat.completions.create(model="gpt-lab", messages=ASK)
    with tallystick.breaker(min_calls=1, per="host"):
        with pytest.raises(openai.APITimeoutError):
            gpt.with_options(timeout=0.1).chat.completions.create(model="gpt-hang", messages=ASK)
        with pytest.raises(tallystick.CircuitOpen, match=r"127\.0\.0\.1: of 1 calls"):
            gpt.chat.completions.create(model="gpt-lab", messages=ASK)


def test_another_model_or_an_answer_of_ones_own(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    with tallystick.breaker(min_calls=1, fallback="gpt-lab") as breaker:
        with pytest.raises(openai.RateLimitError):
            gpt.chat.completions.create(model="gpt-429", messages=ASK)
        assert gpt.chat.completions.create(model="gpt-429", messages=ASK).model.startswith("gpt-lab")
    assert breaker.stopped == 1
    with tallystick.breaker(min_calls=1, fallback=lambda request: f"instead of {request.model}"):
        with pytest.raises(openai.RateLimitError):
            gpt.chat.completions.create(model="gpt-429", messages=ASK)
        answer: Any = gpt.chat.completions.create(model="gpt-429", messages=ASK)
    assert answer == "instead of gpt-429"


def test_a_trial_that_a_guard_stops_tells_nothing(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    now = [0.0]
    with tallystick.breaker(min_calls=1, open_s=10, clock=lambda: now[0]) as breaker:
        with pytest.raises(openai.RateLimitError):
            gpt.chat.completions.create(model="gpt-429", messages=ASK)
        now[0] = 11
        with tallystick.guard(max_tokens_per_call=1), pytest.raises(tallystick.BudgetExceeded):
            gpt.chat.completions.create(model="gpt-429", messages=ASK)
        (standing,) = breaker.standings()
        assert standing.state == "half-open"
        with pytest.raises(openai.RateLimitError):
            gpt.chat.completions.create(model="gpt-429", messages=ASK)
        assert breaker.standings()[0].state == "open"


def test_a_task_that_is_given_up_tells_nothing(provider: ProviderServer) -> None:
    async def main() -> None:
        client = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0)
        async with client, tallystick.breaker(min_calls=1) as breaker:
            task = asyncio.create_task(client.chat.completions.create(model="gpt-hang", messages=ASK))
            while not provider.calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [one.state for one in breaker.standings()] == ["closed"]
            await client.chat.completions.create(model="gpt-lab", messages=ASK)

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", [{"errors": 0}, {"errors": 1.1}, {"min_calls": 0}, {"open_s": 0}, {"slow_s": -1}, {"per": "city"}]
)
def test_figures_that_make_no_sense(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"errors=|above 0|per="):
        tallystick.breaker(**wrong)
