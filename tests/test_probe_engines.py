"""Engines: what a real one is found to be and to take, what odd ones are said to be, and what their metrics say."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama import llama
from odd_engine import Answer, Do, OddEngine, refuse, stream

from tallystick.probes.client.request import open_session, send
from tallystick.probes.config import KINDS, EngineEntry, Timeouts
from tallystick.probes.engines.bodies import CHAT, COMPLETIONS, OPTIONAL, Prompt, body
from tallystick.probes.engines.machine import machine
from tallystick.probes.engines.metrics import scrape
from tallystick.probes.engines.preflight import OUTPUT_TOKENS, PreflightFailed, chosen, fewer, preflight, ways
from tallystick.probes.engines.profiles import found, profile, profiles
from tallystick.probes.engines.starting import Started
from tallystick.probes.engines.tokens import tokeniser
from tallystick.probes.engines.told import plain
from tallystick.probes.records import Ask, Outcome, Record
from tallystick.probes.runs import EngineFacts

GOLDEN = Path(__file__).parent / "probe_metrics"
LIMITS = Timeouts(connect=5, first_token=10, between_tokens=10, whole=20)

_T = TypeVar("_T")


@pytest.fixture(scope="module")
def engine() -> Iterator[Started]:
    with llama("Q8_0") as running:
        yield running


def with_session(work: Callable[[aiohttp.ClientSession], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with open_session() as session:
            return await work(session)

    return asyncio.run(run())


def found_out(url: str, key: str | None = None, limits: Timeouts = LIMITS, **entry: Any) -> EngineFacts:
    """What preflight finds out of the engine at `url`."""
    described = EngineEntry.model_validate({"name": "x", "engine": "openai", "url": url, **entry})
    return with_session(lambda session: preflight(session, described, url, limits, key))


def failed(url: str, **rest: Any) -> PreflightFailed:
    with pytest.raises(PreflightFailed) as raised:
        found_out(url, **rest)
    return raised.value


# Profiles


def test_every_kind_has_a_profile_and_sources() -> None:
    assert set(profiles()) == set(KINDS) == set(get_args(EngineEntry.model_fields["engine"].annotation))
    for kind in KINDS:
        described = profile(kind)
        assert set(described.fields) <= set(OPTIONAL)
        assert all(source.startswith("https://") for source in described.sources)
        assert described.sources


def test_places() -> None:
    content = {"data": [{"id": "a", "max": 5}], "tokens": [{"id": 7}, {"id": 8}]}
    assert found(content, "data.0.max") == 5
    assert found(content, "tokens.*.id") == [7, 8]
    assert found(content, "") is content
    assert [found(content, place) for place in ("data.1.max", "data.x", "no.such", "data.0.id.more", "data.*.id.*")] == [
        None,
        None,
        None,
        None,
        [None],
    ]
    assert found(None, "a") is None


# A real engine


def test_llamacpp_is_found_out(engine: Started) -> None:
    facts = found_out(f"{engine.url}/v1/", engine="llamacpp")
    assert (facts.url, facts.model, facts.endpoint) == (engine.url, "generated-q8_0", COMPLETIONS)
    assert facts.fields == profile("llamacpp").fields
    assert (facts.token_ids, facts.sees_usage, facts.context, facts.keeps_connections) == (True, True, 4096, False)
    assert facts.metrics_url == f"{engine.url}/metrics"
    assert facts.settings["total_slots"] == 4
    assert facts.settings["model_ftype"] == "Q8_0"
    assert not facts.settings.keys() & {"chat_template", "media_marker"}
    assert facts.notes == ()
    assert json.loads(json.dumps(facts.settings)) == facts.settings


def test_an_unknown_engine_that_closes_in_silence_is_found_out_too(engine: Started) -> None:
    facts = found_out(engine.url)
    assert (facts.endpoint, facts.token_ids, facts.keeps_connections) == (CHAT, False, False)
    assert facts.metrics_url is None
    assert any("sent as text" in note for note in facts.notes)


def test_prompts_of_token_ids_are_exact_and_metrics_count_them(engine: Started) -> None:
    async def work(session: aiohttp.ClientSession) -> tuple[list[Record], dict[str, float], dict[str, float]]:
        described = EngineEntry(name="x", engine="llamacpp", url=engine.url)
        facts = await preflight(session, described, engine.url, LIMITS, None)
        before = await scrape(session, facts)
        prefix = tuple(range(100, 180))
        records = []
        for number, ids in enumerate([prefix, prefix, (*prefix, 7), (9,)]):
            content = body(facts, Prompt(ids, ""), 5 + number, {})
            ask = Ask(number, None, content, len(ids), 5 + number)
            records.append(await send(session, facts, ask, 0, timeouts=LIMITS, key=None))
        after = await scrape(session, facts)
        assert before is not None
        assert after is not None
        return records, before, after

    records, before, after = with_session(work)
    assert {record.outcome for record in records} == {Outcome.OK}
    usages = [record.usage for record in records]
    assert [usage and usage.prompt_tokens for usage in usages] == [80, 80, 81, 1]
    assert [usage and usage.completion_tokens for usage in usages] == [5, 6, 7, 8]
    grown = {name: after[name] - before[name] for name in after}
    assert grown["prompt_tokens"] == grown["prefix_cache_queries"] == 80 + 80 + 81 + 1
    cached = sum((usage and usage.cached_tokens) or 0 for usage in usages)
    assert cached > 100
    assert grown["cached_prompt_tokens"] == grown["prefix_cache_hits"] == cached
    assert grown["generated_tokens"] == 5 + 6 + 7 + 8
    assert after["requests_waiting"] == 0


def test_its_tokeniser_goes_both_ways(engine: Started) -> None:
    async def work(session: aiohttp.ClientSession) -> None:
        facts = await preflight(session, EngineEntry(name="x", engine="llamacpp", url=engine.url), engine.url, LIMITS, None)
        own = await tokeniser(session, facts)
        assert own is not None
        for text in ("hello world", "a <|user|> is text here", "x" * 500):
            ids = await own.encode(text)
            assert await own.count(text) == len(ids) > 0
            assert await own.decode(ids) == text
        assert await own.count("<|user|>") > 1  # in a prompt of ours it is text
        none = EngineFacts("vllm", engine.url + "/nowhere", facts.model, "", CHAT, (), False, False, None, None)
        assert await tokeniser(session, none) is None

    with_session(work)


def test_a_key_is_taken_refused_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "key-of-the-engine")
    with llama() as engine:
        facts = found_out(engine.url, key="key-of-the-engine", engine="llamacpp")
        assert facts.metrics_url
        assert "key-of-the-engine" not in repr(facts)
        wrong = failed(engine.url, key="another-key")
        assert "doesn't take this API key" in wrong.message
        assert "another-key" not in wrong.message + wrong.hint
        assert "key_env" in failed(engine.url).hint
        assert "key-of-the-engine" not in engine.log.read_text()


# Odd engines


def test_fields_that_are_named_are_left_out() -> None:
    known = ["model", "messages", "stream", "max_tokens", "temperature", "stream_options"]
    with OddEngine(stream(OUTPUT_TOKENS), fields=known) as engine:
        facts = found_out(engine.url)
        assert facts.fields == ("stream_options", "temperature")
        assert [note.split(" (")[0] for note in facts.notes if note.startswith("without")] == [
            "without ignore_eos",
            "without min_tokens",
            "without seed",
        ]
        assert any("may end before" in note for note in facts.notes)
        assert engine.seen[-1].body.keys() == set(known)


def test_without_names_all_are_left_out() -> None:
    plain_ones = {"model", "messages", "stream", "max_tokens"}
    with OddEngine(lambda seen: refuse(400, "no") if seen.body.keys() - plain_ones else stream()) as engine:
        facts = found_out(engine.url)
    assert facts.fields == ()
    assert len([note for note in facts.notes if note.startswith("without")]) == 5


def test_max_completion_tokens_stands_in() -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    with OddEngine(lambda seen: refuse(400, said) if "max_tokens" in seen.body else stream(OUTPUT_TOKENS)) as engine:
        facts = found_out(engine.url)
    assert facts.fields == (*profile("openai").fields, "max_completion_tokens")
    assert facts.notes == ("prompts are sent as text, and their length is what the engine counts",)


def test_where_completions_are_not_there_chats_are_taken() -> None:
    with OddEngine(lambda seen: refuse(404, "Not Found") if seen.path == COMPLETIONS else stream(OUTPUT_TOKENS)) as engine:
        facts = found_out(engine.url, engine="tensorrt-llm")
        assert (facts.endpoint, facts.token_ids) == (CHAT, False)
        assert "is no OpenAI-compatible API" in failed(engine.url, api="completions").message


def test_where_chats_have_no_template_completions_are_taken() -> None:
    def answer(seen: Any) -> Answer:
        return refuse(400, "the model has no chat template") if seen.path == CHAT else stream(OUTPUT_TOKENS)

    with OddEngine(answer) as engine:
        facts = found_out(engine.url)
    assert (facts.endpoint, facts.fields) == (COMPLETIONS, profile("openai").fields)


def test_what_is_added_to_requests_is_sent_and_wins() -> None:
    with OddEngine(stream(OUTPUT_TOKENS)) as engine:
        found_out(engine.url, request={"temperature": 0.7, "chat_template_kwargs": {"enable_thinking": False}})
    assert engine.seen[0].body["temperature"] == 0.7
    assert engine.seen[0].body["chat_template_kwargs"] == {"enable_thinking": False}


def test_an_engine_that_counts_otherwise_is_said_to() -> None:
    with OddEngine(stream(3)) as engine:
        assert any("asked for 16 tokens and no fewer, it counts 3" in note for note in found_out(engine.url).notes)
    with OddEngine(stream(OUTPUT_TOKENS, done=False)) as engine:
        assert "its streams end without [DONE]" in found_out(engine.url).notes
    with OddEngine(stream(OUTPUT_TOKENS, usage=False)) as engine:
        facts = found_out(engine.url)
        assert not facts.sees_usage
        assert any("no usage" in note for note in facts.notes)


def test_keeping_connections_is_seen() -> None:
    with OddEngine(stream(OUTPUT_TOKENS)) as engine:
        assert found_out(engine.url).keeps_connections


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        (refuse(429, "slow down"), "is busy: status 429: slow down", "nobody else"),
        (refuse(500, "CUDA out of memory"), "refuses a plain request: status 500: CUDA out of memory", "log"),
        (refuse(401, "no"), "asks for an API key", "key_env"),
        (refuse(404, "model not found"), "is no OpenAI-compatible API, or doesn't serve 'odd'", "model"),
        (refuse(422, "no"), "refuses a plain request", "`api`"),
        (stream(0), "without a single token", "`chat` or `completions`"),
        (Answer([b"<html>hello</html>"], content_type="text/html"), "brings no stream of tokens", "OpenAI-compatible"),
        (Answer([Do.RESET]), "brings no stream of tokens", "OpenAI-compatible"),
        (Answer([b"data: {nonsense\n\n"]), "brings no stream of tokens", "OpenAI-compatible"),
        (Answer([Do.HANG]), "does not answer in time", "timeouts"),
    ],
)
def test_what_cannot_be_measured_is_said(script: Answer, message: str, hint: str) -> None:
    with OddEngine(script) as engine:
        error = failed(engine.url, limits=Timeouts(connect=5, first_token=0.3, between_tokens=5, whole=5))
    assert message in error.message
    assert hint in error.hint


def test_nothing_there() -> None:
    with OddEngine() as engine:
        url = engine.url
    error = failed(url)
    assert error.message == f"nothing answers at {url}: Connection refused"
    assert "url" in error.hint


def test_models() -> None:
    with OddEngine(stream(OUTPUT_TOKENS), models=[f"m{number}" for number in range(30)]) as engine:
        assert found_out(engine.url, model="m7").model == "m7"
        assert "serves 30 models: m0, m1," in failed(engine.url).message
        assert failed(engine.url).message.endswith("m19 and 10 more")
        assert "serves no model 'other', only m0" in failed(engine.url, model="other").message
    for listed in (
        refuse(404),
        Answer([b"<html>"], content_type="text/html"),
        Answer([b'{"models":[]}'], content_type="application/json"),
    ):
        with OddEngine(stream(OUTPUT_TOKENS), others={"/v1/models": listed}) as engine:
            assert found_out(engine.url, model="mine").model == "mine"
            assert "lists no models" in failed(engine.url).message
    moved = Answer(status=301, headers={"Location": "https://example.org/v1/models"})
    with OddEngine(others={"/v1/models": moved}) as engine:
        assert "redirects elsewhere" in failed(engine.url).message
    assert chosen(["llama3.2:latest", "other"], "llama3.2", "u") == "llama3.2"


def test_without_its_metrics_an_engine_is_told_how_to_have_them() -> None:
    with OddEngine(stream(OUTPUT_TOKENS)) as engine:
        facts = found_out(engine.url, engine="sglang", api="chat")
        assert facts.metrics_url is None
        assert facts.notes[0].startswith("what is known of SGLang was read in its documentation")
        assert facts.notes[-1] == "/metrics tells no figures of SGLang; it must be started with --enable-metrics"
        assert with_session(lambda session: scrape(session, facts)) is None


def test_settings_of_vllm() -> None:
    card = {"id": "odd", "object": "model", "created": 1, "max_model_len": 8192, "permission": [{}], "root": "/models/odd"}
    others = {
        "/v1/models": Answer([json.dumps({"data": [card]}).encode()], content_type="application/json"),
        "/version": Answer([b'{"version":"0.32.0"}'], content_type="application/json"),
    }
    text = (GOLDEN / "vllm.txt").read_text(encoding="utf-8")
    with OddEngine(stream(OUTPUT_TOKENS), others=others, metrics=text) as engine:
        facts = found_out(engine.url, engine="vllm", api="chat")
    assert (facts.version, facts.context) == ("0.32.0", 8192)
    assert facts.settings == {
        "id": "odd",
        "object": "model",
        "max_model_len": 8192,
        "root": "/models/odd",
        "block_size": "128",
        "enable_prefix_caching": "True",
        "gpu_memory_utilization": "0.9",
    }


def test_settings_hold_no_secret() -> None:
    content = {
        "model_path": "m", "api_key": "k", "admin_api_key": "k", "ssl_keyfile_password": "p", "hf_token": "t", "max_total_num_tokens": 5,
        "note": "uses s3cret", "chat_template": "x" * 500, "nested": {"a": 1}, "none": None, "empty": "", "share": 0.5, "on": True,
    }  # fmt: skip
    assert plain(content, "s3cret") == {"model_path": "m", "max_total_num_tokens": 5, "share": 0.5, "on": True}
    assert plain([1]) == {}


# Decisions


@given(
    st.lists(st.sampled_from(sorted(OPTIONAL)), unique=True), st.text(alphabet="abmnxyz_ ") | st.sampled_from(sorted(OPTIONAL))
)
def test_fields_become_fewer_until_there_are_none(fields: list[str], refusal: str) -> None:
    left: tuple[str, ...] | None = tuple(fields)
    for _ in range(len(OPTIONAL) + 2):
        if left is None:
            return
        left = fewer(left, refusal)
    raise AssertionError("goes on for ever")


def test_ways_in_their_order() -> None:
    assert [tuple(way) for way in ways("auto", profile("vllm"))] == [(COMPLETIONS, True), (CHAT, False), (COMPLETIONS, False)]
    assert [tuple(way) for way in ways("auto", profile("tgi"))] == [(CHAT, False), (COMPLETIONS, False)]
    assert [tuple(way) for way in ways("chat", profile("vllm"))] == [(CHAT, False)]
    assert [tuple(way) for way in ways("completions", profile("vllm"))] == [(COMPLETIONS, True), (COMPLETIONS, False)]


def test_bodies() -> None:
    facts = EngineFacts("vllm", "u", "m", "", COMPLETIONS, ("stream_options", "ignore_eos", "min_tokens"), True, True, None, None)
    assert json.loads(body(facts, Prompt((1, 2), "one two"), 7, {"top_k": 5, "max_tokens": 9})) == {
        "model": "m", "stream": True, "max_tokens": 9, "prompt": [1, 2], "stream_options": {"include_usage": True},
        "ignore_eos": True, "min_tokens": 7, "top_k": 5,
    }  # fmt: skip
    without_ids = EngineFacts("tgi", "u", "m", "", COMPLETIONS, (), False, True, None, None)
    assert json.loads(body(without_ids, Prompt((1, 2), "one two"), 7, {}))["prompt"] == "one two"
    facts = EngineFacts("openai", "u", "m", "", CHAT, ("max_completion_tokens",), True, True, None, None)
    assert json.loads(body(facts, Prompt((1, 2), "eins – zwei"), 7, {})) == {
        "model": "m", "stream": True, "max_completion_tokens": 7, "messages": [{"role": "user", "content": "eins – zwei"}],
    }  # fmt: skip


def test_the_machine() -> None:
    described = json.loads(json.dumps(machine()))
    assert described["cores"] <= (os.cpu_count() or 1)
    assert described["memory_bytes"] > 100_000_000
    assert described["cpu"]
    assert isinstance(described["gpus"], list)
