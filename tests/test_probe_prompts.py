"""Prompts of exactly so many tokens, as a real llama.cpp server counts them, of which no two begin alike unless they are to."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama import entry, llama

from tallystick.probes.client.request import open_session, send
from tallystick.probes.config import Load, Timeouts, Workload
from tallystick.probes.engines.bodies import CHAT, COMPLETIONS, Prompt, body
from tallystick.probes.engines.preflight import preflight
from tallystick.probes.engines.tokens import tokeniser
from tallystick.probes.load.prompts import Asked, Made, Prompts, asks, plain_words
from tallystick.probes.load.sizes import Size
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.records import Ask, LoadPoint
from tallystick.probes.runs import EngineFacts

TIMEOUTS = Timeouts()
CLOSED = LoadPoint("closed", concurrency=1)
FACTS = EngineFacts("llamacpp", "http://127.0.0.1", "m", "", COMPLETIONS, ("ignore_eos",), True, True, 4096, None)
AS_TEXT = replace(FACTS, endpoint=CHAT, token_ids=False)


class Words:
    """A tokeniser with a token for each letter of the alphabet, its words, and a mark before each text."""

    async def encode(self, text: str) -> Sequence[int]:
        return [1, *(100 + ord(letter) for letter in text if letter != " "), *(50 for letter in text if letter == " ")]

    async def count(self, text: str) -> int:
        return len(await self.encode(text))


def size(tokens: int, prefix: int | None = None, prefix_tokens: int = 0) -> Size:
    return Size(tokens, 8, prefix, "", None, prefix_tokens)


def prepared(facts: EngineFacts, *, with_tokeniser: bool = True, salt: str = "run", added: int | None = None) -> Prompts:
    async def used(prompt: Prompt) -> int | None:
        sent = len(prompt.token_ids) if prompt.token_ids is not None else await Words().count(prompt.text)
        return None if added is None else sent + added

    prompts = Prompts(facts, 7, salt)
    asyncio.run(prompts.prepare(Words() if with_tokeniser else None, used))
    return prompts


def made(prompts: Prompts, wanted: Size, number: int = 0, stage: int = 0) -> Made:
    return asyncio.run(prompts.prompt(wanted, number, stage))


def ids(prompts: Prompts, wanted: Size, number: int = 0, stage: int = 0) -> tuple[int, ...]:
    found = made(prompts, wanted, number, stage).prompt.token_ids
    assert found is not None
    return found


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """By so much they begin the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llama() as engine:
        yield engine.url


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_real_engine_counts_as_many_as_were_asked_for(url: str, api: str) -> None:
    """Token ids, and text with a chat template around it; shared prefixes are found in the engine's cache, and nothing else is."""
    workload = Workload.model_validate(
        {"input_tokens": {"min": 150, "max": 400}, "output_tokens": 2, "prefix": {"tokens": 96, "experiment": True}}
    )
    load = Load(kind="closed", concurrencies=(1,), requests=16, warmup=1)

    async def measured() -> tuple[Asked, list[tuple[Ask, int | None, int | None]]]:
        async with open_session() as session:
            facts = await preflight(session, entry().model_copy(update={"api": api}), url, TIMEOUTS, None)

            async def used(prompt: Prompt) -> int | None:
                ask = Ask(0, None, body(facts, prompt, 1, {}), None, 1)
                record = await send(session, facts, ask, 0, timeouts=TIMEOUTS, key=None)
                return record.usage.prompt_tokens if record.usage else None

            prompts = Prompts(facts, load.seed, f"{api} {url}")
            await prompts.prepare(await tokeniser(session, facts), used)
            asked = await asks(prompts, workload, load, CLOSED, stage=1)
            counted = []
            for ask in asked.asks:
                record = await send(session, facts, ask, 0, timeouts=TIMEOUTS, key=None)
                assert record.usage is not None, record.error
                counted.append((ask, record.usage.prompt_tokens, record.usage.cached_tokens))
            return asked, counted

    asked, counted = asyncio.run(measured())
    assert asked.notes == ()
    assert [ask.warmup for ask, _, _ in counted] == [True] + [False] * 16
    assert all(150 <= tokens <= 400 and tokens == ask.input_tokens for ask, tokens, _ in counted if tokens), counted
    cached = {
        group: [hit for ask, _, hit in counted if ask.group == group] for group in ("cold", "warm", "interleaved", "control")
    }
    # What the template begins with, and what two prompts share by chance, is less than a block.
    assert all(hit is not None and hit >= 96 for group in ("warm", "interleaved") for hit in cached[group]), cached
    assert all(hit is not None and hit < 16 for group in ("cold", "control") for hit in cached[group]), cached


@given(st.integers(1, 3000), st.integers(0, 3000))
def test_ids_are_as_many_as_asked_for(tokens: int, prefix_tokens: int) -> None:
    prompts = prepared(FACTS)
    assert len(ids(prompts, size(tokens, 2, prefix_tokens))) == tokens
    assert made(prompts, size(tokens)).tokens == tokens


def test_ids_are_of_plain_words() -> None:
    letters = {100 + ord(letter) for word in plain_words() for letter in word} | {50}
    found = set(ids(prepared(FACTS), size(5000)))
    # 1 stands before every text, and so with the separator and the letters that two words share: they are no loss.
    assert found <= letters
    assert 1 not in found
    assert len(found) > 15


def test_without_a_tokeniser_ids_are_chosen_blindly() -> None:
    prompts = prepared(FACTS, with_tokeniser=False)
    assert set(ids(prompts, size(500))) <= set(range(1000, 2000))
    assert prompts.notes == (
        "prompts are lists of 1,000 different token ids, chosen blindly, for it has no tokeniser to ask: their length is exact",
    )


@given(st.integers(40, 3000), st.integers(0, 40))
def test_texts_are_as_long_as_asked_for(tokens: int, added: int) -> None:
    found = made(prepared(AS_TEXT, added=added), size(tokens + added, 3, tokens // 2))
    assert found.tokens == tokens + added
    assert asyncio.run(Words().count(found.prompt.text)) + added == tokens + added


def test_what_a_template_adds_and_nobody_tells() -> None:
    prompts = prepared(AS_TEXT)
    assert made(prompts, size(200)).tokens is None
    assert asyncio.run(Words().count(made(prompts, size(200)).prompt.text)) == 200
    assert "what a chat template adds isn't known" in prompts.notes[0]


def test_a_prompt_shorter_than_what_the_engine_adds() -> None:
    found = made(prepared(AS_TEXT, added=30), size(10))
    assert found.tokens is None
    assert found.prompt.text


def test_without_a_tokeniser_words_stand_for_tokens() -> None:
    prompts = prepared(AS_TEXT, with_tokeniser=False)
    found = made(prompts, size(200))
    assert (len(found.prompt.text.split()), found.tokens) == (200, None)
    assert prompts.notes == (
        "the engine has no tokeniser to ask: prompts are about as long as they should be, and its usage tells how long",
    )


@pytest.mark.parametrize("facts", [FACTS, AS_TEXT])
def test_no_two_begin_alike_unless_they_are_to(facts: EngineFacts) -> None:
    prompts = prepared(facts, added=0)
    keys = [(number, stage) for stage in range(3) for number in range(40)]
    every = [made(prompts, size(120), number, stage).prompt for number, stage in keys]
    begun = [prompt.token_ids[:16] if prompt.token_ids is not None else prompt.text[:32] for prompt in every]
    assert len(set(begun)) == len(begun)
    shared = [made(prompts, size(120, 1, 60), number, 2).prompt for number in range(10)]
    for one, other in combinations(shared, 2):
        if one.token_ids is not None and other.token_ids is not None:
            assert 60 <= alike(one.token_ids, other.token_ids) < 70
        else:
            common = one.text[: alike(one.text, other.text)]
            assert 50 <= asyncio.run(Words().count(common)) < 80
    elsewhere = made(prompts, size(120, 1, 60), 0, 3).prompt
    assert elsewhere.token_ids is None or elsewhere.token_ids[:16] != (shared[0].token_ids or ())[:16]


def test_the_same_run_makes_the_same_prompts_and_another_run_others() -> None:
    first, again, later = (ids(prepared(FACTS, salt=salt), size(64)) for salt in ("a", "a", "b"))
    assert first == again
    # An engine that still runs has the first run's prompts in its cache.
    assert first[:16] != later[:16]


def test_a_longer_part_of_a_prefix_begins_as_a_shorter_one() -> None:
    """Of calls of a feature each takes as much of one beginning as a cache held for it then."""
    prompts = prepared(FACTS)
    assert ids(prompts, size(300, 0, 200))[:150] == ids(prompts, size(160, 0, 150), 9)[:150]


def asked(load: Load, point: LoadPoint, workload: Workload, stage: int = 1, calls: Sequence[Call] | None = None) -> Asked:
    return asyncio.run(asks(prepared(FACTS), workload, load, point, stage=stage, calls=calls, extra={"top_k": 5}))


SYNTHETIC = Workload(input_tokens=50, output_tokens=9)


def test_the_requests_of_a_stage() -> None:
    load = Load(kind="poisson", rates=(5,), requests=20, warmup=3)
    found = asked(load, LoadPoint("poisson", rate=5), SYNTHETIC).asks
    assert [ask.number for ask in found] == list(range(23))
    assert [ask.warmup for ask in found] == [True] * 3 + [False] * 20
    times = [ask.at_ns for ask in found if ask.at_ns is not None]
    assert times == sorted(times)
    assert len(set(times)) == 23
    assert {(ask.input_tokens, ask.output_tokens) for ask in found} == {(50, 9)}
    content = json.loads(found[0].body)
    assert (len(content["prompt"]), content["max_tokens"], content["ignore_eos"], content["top_k"]) == (50, 9, True, 5)
    other = asked(load, LoadPoint("poisson", rate=5), SYNTHETIC, stage=2).asks
    assert [ask.at_ns for ask in other] != [ask.at_ns for ask in found]
    assert not {ask.body for ask in other} & {ask.body for ask in found}


def test_a_closed_loop_has_no_times() -> None:
    assert {ask.at_ns for ask in asked(Load(kind="closed", concurrencies=(2,), requests=5), CLOSED, SYNTHETIC).asks} == {None}


def test_calls_come_as_they_came_or_at_another_rate() -> None:
    calls = [Call(10**18 + at * at * 1_000_000, 20 + at, 0, 5) for at in range(33)]
    workload = Workload.model_validate({"ledger": {"where": {"feature": "chat"}}})
    load = Load(kind="trace", requests=9, warmup=2)
    as_it_was = asked(load, LoadPoint("trace"), workload, calls=calls).asks
    assert [ask.at_ns for ask in as_it_was] == [at * at * 1_000_000 for at in range(11)]
    assert [ask.input_tokens for ask in as_it_was] == [20 + at for at in range(11)]
    scaled = asked(load, LoadPoint("trace", rate=2), workload, calls=calls).asks
    assert scaled[-1].at_ns == pytest.approx(5_000_000_000, rel=1e-6)
    # For another kind of load the mix counts, not the times.
    assert [ask.input_tokens for ask in asked(load, CLOSED, workload, calls=calls).asks] == [20 + 3 * at for at in range(11)]
    with pytest.raises(ValueError, match="no call"):
        asked(load, CLOSED, workload, calls=[])


def test_blocks_that_a_prefix_does_not_fill_are_told() -> None:
    facts = replace(FACTS, kind="vllm", settings={"block_size": "128"})
    workload = Workload.model_validate({"input_tokens": 500, "output_tokens": 2, "prefix": {"tokens": 200}})
    load = Load(kind="closed", concurrencies=(1,), requests=2, warmup=0)
    found = asyncio.run(asks(prepared(facts), workload, load, CLOSED, stage=0))
    assert found.notes == ("of a prefix of 200 tokens the engine's cache keeps 128: whole blocks of 128",)
