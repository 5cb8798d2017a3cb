"""Guards around the real client libraries: what goes out is what fits."""

import asyncio
import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

import tallystick
from tallystick.collectors.calls.request import Request
from tallystick.testing import USAGE_HEADER, ProviderServer

ASK: Any = [{"role": "user", "content": "a secret question"}]
SMALL: Any = {"max_completion_tokens": 50, "extra_headers": {USAGE_HEADER: '{"input": 10, "output": 40}'}}
"""A call that takes no more than it may."""
TOOK = 50


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture
def gpt(provider: ProviderServer) -> Iterator[openai.OpenAI]:
    provider.calls.clear()
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(provider: ProviderServer) -> Iterator[anthropic.Anthropic]:
    provider.calls.clear()
    with anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_STRICT", "1")


def left(guard: Any, session: str = "") -> Any:
    """What the guard's first limit of a session has spent and reserved."""
    one = next(one for one in guard.standings() if one.subject == session)
    return one.spent, one.reserved


def worst_case(gpt: openai.OpenAI, **call: Any) -> Decimal:
    """Tokens that a call is taken for."""
    with tallystick.guard(max_tokens_per_call=1), pytest.raises(tallystick.BudgetExceeded) as stopped:
        gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, **call)
    assert stopped.value.wanted is not None
    return stopped.value.wanted


def test_a_call_over_its_limit_is_not_sent(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    guard = tallystick.guard(customer="acme", max_usd_per_call="0.001")
    with guard, tallystick.scope(customer="acme", session="s1"):
        with pytest.raises(tallystick.BudgetExceeded) as stopped:
            gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=10_000)
        gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_tokens=10)
    error = stopped.value
    assert (error.limit, error.spent, error.reserved) == (Decimal("0.001"), None, None)
    assert error.wanted is not None
    assert Decimal("0.006") < error.wanted < Decimal("0.0061"), "10,000 tokens of 0.60 USD a million, and the question"
    assert error.scope == {"tallystick.customer": "acme", "tallystick.session": "s1"}
    assert error.excess.guard == "guard(customer='acme', max_usd_per_call='0.001')"
    assert "Lower the request's limit of output tokens" in str(error)
    assert "secret" not in str(error) + repr(vars(error))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len(provider.calls) == 1
    assert guard.stopped == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_session_ends_where_its_limit_does(gpt: openai.OpenAI, provider: ProviderServer, streamed: bool) -> None:
    most = worst_case(gpt, **SMALL)
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    guard = tallystick.guard(max_tokens_per_session=int(most) + 2 * TOOK)
    for session in ("s1", "s2"):
        with guard, tallystick.scope(session=session):
            for _ in range(3):
                answer = gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, **SMALL, **more)
                if streamed:
                    assert left(guard, session)[1] == most
                    list(answer)
            with pytest.raises(tallystick.BudgetExceeded, match=f"the limit of a session '{session}'") as stopped:
                gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, **SMALL)
        error: Any = stopped.value
        assert (error.spent, error.reserved, error.wanted) == (3 * TOOK, 0, most)
        assert left(guard, session) == (3 * TOOK, 0)
    assert len(provider.calls) == 6


def test_calls_outside_of_the_scope_of_a_guard_are_not_held(gpt: openai.OpenAI) -> None:
    with tallystick.guard(customer="acme", team="search", max_tokens_per_call=1):
        gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        with tallystick.scope(customer="acme", team="other"):
            gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        with tallystick.scope(customer="acme", team="search"), pytest.raises(tallystick.BudgetExceeded):
            gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK)


def test_of_fifty_first_calls_at_once_three_go_out(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    most = worst_case(gpt, **SMALL)
    guard = tallystick.guard(max_tokens_per_session=int(most) * 3 + 10).install()
    begin = threading.Barrier(50)
    streams: list[Any] = []
    stopped: list[Any] = []

    def call() -> None:
        begin.wait()
        try:
            # None ends before all have tried.
            streams.append(gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True, **SMALL))
        except tallystick.BudgetExceeded as error:
            stopped.append(error)

    try:
        threads = [threading.Thread(target=call) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        guard.uninstall()
    assert (len(streams), len(provider.calls), len(stopped)) == (3, 3, 47)
    assert {(error.spent, error.reserved, error.wanted) for error in stopped} == {(0, 3 * most, most)}
    assert left(guard) == (0, 3 * most)
    for stream in streams:
        stream.close()
    assert left(guard)[1] == 0


def test_of_fifty_tasks_at_once_three_go_out(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    guard = tallystick.guard(max_tokens_per_session=int(worst_case(gpt, max_completion_tokens=50)) * 3)

    @guard
    async def call(client: openai.AsyncOpenAI) -> bool:
        try:
            await client.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_completion_tokens=50)
        except tallystick.BudgetExceeded:
            return False
        return True

    async def main() -> list[bool]:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
            return await asyncio.gather(*(call(client) for _ in range(50)))

    # The provider tells 1,250 tokens, so the first that ends leaves nothing.
    assert sum(asyncio.run(main())) == len(provider.calls) == 3


def test_streams_settle_however_they_end(gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    guard = tallystick.guard(max_tokens_per_session=100_000)
    with guard:

        def openai_stream() -> Any:
            return gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)

        def anthropic_stream() -> Any:
            return claude.messages.create(model="claude-lab", max_tokens=9, messages=ASK, stream=True)

        before = Decimal(0)
        for stream in (openai_stream, anthropic_stream):
            for end in (list, lambda given: given.close(), lambda given: next(iter(given)) and given.close(), lambda _: None):
                given = stream()
                assert left(guard)[1] > 0
                end(given)
                del given
                if left(guard)[1]:
                    gc.collect()  # nobody closed it
                spent, reserved = left(guard)
                assert reserved == 0
                assert spent >= before
                before = spent
    assert before > 0


def test_asynchronous_streams_settle_too(provider: ProviderServer) -> None:
    guard = tallystick.guard(max_tokens_per_session=100_000)

    async def main() -> None:
        async with (
            openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as gpt,
            anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0) as claude,
            guard,
        ):
            whole: Any = await claude.messages.create(model="claude-lab", max_tokens=9, messages=ASK, stream=True)
            assert [event async for event in whole]
            assert left(guard) == (142, 0)
            closed: Any = await gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)
            await anext(aiter(closed))
            assert left(guard)[1] > 0
            await closed.close()
            assert left(guard)[1] == 0

            async def read() -> None:
                stream: Any = await gpt.chat.completions.create(model="gpt-4o-mini-slow", messages=ASK, stream=True)
                async for _ in stream:
                    reading.set()

            reading = asyncio.Event()
            task = asyncio.create_task(read())
            await reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if left(guard)[1]:
                gc.collect()  # nobody closed it
            assert left(guard)[1] == 0

    asyncio.run(main())


def test_a_call_that_the_provider_refuses_takes_nothing(
    gpt: openai.OpenAI, claude: anthropic.Anthropic, provider: ProviderServer
) -> None:
    guard = tallystick.guard(max_tokens_per_session=10_000)
    with guard:
        for model in ("gpt-429", "gpt-500"):
            with pytest.raises(openai.APIStatusError):
                gpt.chat.completions.create(model=model, messages=ASK)
        with pytest.raises(anthropic.APIStatusError):
            claude.messages.create(model="claude-429", max_tokens=9, messages=ASK)
        nowhere = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            nowhere.chat.completions.create(model="gpt-lab", messages=ASK)
        assert left(guard) == (0, 0)
        # It may be that this one was answered, and is paid for.
        with pytest.raises(openai.APITimeoutError):
            gpt.with_options(timeout=0.2).chat.completions.create(model="gpt-hang", messages=ASK, max_completion_tokens=50)
    spent, reserved = left(guard)
    assert (spent > 50, reserved) == (True, 0)


def test_a_smaller_model_instead(gpt: openai.OpenAI, claude: anthropic.Anthropic, provider: ProviderServer) -> None:
    with tallystick.guard(max_usd_per_call="0.0005", fallback="gpt-4o-mini") as guard:
        answer = gpt.chat.completions.create(model="gpt-4o", messages=ASK, max_completion_tokens=100)
        assert answer.model.startswith("gpt-4o-mini")
        assert provider.calls[-1].request_model == "gpt-4o-mini"
        with pytest.raises(tallystick.BudgetExceeded, match="'gpt-4o' may take"):
            gpt.chat.completions.create(model="gpt-4o", messages=ASK, max_completion_tokens=10_000)
    assert guard.stopped == 2
    assert len(provider.calls) == 1
    with tallystick.guard(max_usd_per_call="0.01", fallback="claude-haiku-4-5"):
        claude.messages.create(model="claude-opus-4-5", messages=ASK, max_tokens=1000)
    assert provider.calls[-1].request_model == "claude-haiku-4-5"


def test_an_answer_of_ones_own_instead(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    asked: list[Request] = []

    def instead(request: Request) -> Any:
        asked.append(request)
        return gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, max_completion_tokens=50)

    with tallystick.guard(max_usd_per_call="0.0005", fallback=instead):
        answer = gpt.chat.completions.create(model="gpt-4o", messages=ASK, max_completion_tokens=100)
    assert answer.model.startswith("gpt-4o-mini")
    assert [request.model for request in asked] == ["gpt-4o"]

    async def main() -> str:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:

            async def later(request: Request) -> str:
                # What doesn't fit in a fallback doesn't fall back again.
                with pytest.raises(tallystick.BudgetExceeded):
                    await client.chat.completions.create(model="gpt-4o", messages=ASK)
                return f"kept for {request.model}"

            with tallystick.guard(max_usd_per_call="0.0005", fallback=later):
                return str(await client.chat.completions.create(model="gpt-4o", messages=ASK))

    assert asyncio.run(main()) == "kept for gpt-4o"
    assert len(provider.calls) == 1


def test_a_fallback_that_fails_lets_nothing_go(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    def broken(_: Request) -> Any:
        raise LookupError("broken")

    with tallystick.guard(max_tokens_per_call=1, fallback=broken), pytest.raises(tallystick.BudgetExceeded) as stopped:
        gpt.chat.completions.create(model="gpt-4o", messages=ASK)
    assert isinstance(stopped.value.__cause__, LookupError)
    assert not provider.calls


def test_a_model_without_a_price(gpt: openai.OpenAI, provider: ProviderServer, caplog: pytest.LogCaptureFixture) -> None:
    with tallystick.guard(max_usd_per_call=1) as guard:
        gpt.chat.completions.create(model="gpt-lab", messages=ASK)
    assert guard.unpriced == 1
    with (
        tallystick.guard(max_usd_per_session=1, on_unknown="refuse"),
        pytest.raises(tallystick.BudgetExceeded, match="'gpt-lab' has no price") as stopped,
    ):
        gpt.chat.completions.create(model="gpt-lab", messages=ASK)
    error: Any = stopped.value
    assert (error.limit, error.wanted) == (1, None)
    with tallystick.guard(max_tokens_per_call=100_000, on_unknown="refuse"):
        gpt.chat.completions.create(model="gpt-lab", messages=ASK)
    assert len(provider.calls) == 2


def test_guards_nest_and_the_first_that_is_exceeded_stops(gpt: openai.OpenAI, provider: ProviderServer) -> None:
    wide, narrow = tallystick.guard(max_tokens_per_session=100_000), tallystick.guard(max_tokens_per_session=1)
    with wide:
        with narrow, pytest.raises(tallystick.BudgetExceeded, match="guard\\(max_tokens_per_session='1'\\)"):
            gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        assert left(wide) == (0, 0)
        with wide:
            gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, **SMALL)
        assert left(wide) == (TOOK, 0), "once, however often it is entered"


@pytest.mark.parametrize(
    "wrong",
    [{}, {"max_usd_per_call": -1}, {"max_usd_per_session": "much"}, {"max_tokens_per_call": 1, "on_unknown": "maybe"}],
)
def test_limits_that_make_no_sense(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"guard needs a limit|is no amount|on_unknown is"):
        tallystick.guard(**wrong)


def test_what_a_call_costs_is_what_the_price_list_says(gpt: openai.OpenAI) -> None:
    guard = tallystick.guard(max_usd_per_session=1)
    with guard:
        gpt.chat.completions.create(model="gpt-4o-mini-cached", messages=ASK)
        gpt.chat.completions.create(model="gpt-4o-mini", messages=ASK, **SMALL)
    # 10 and 40 tokens of 0.15 and 0.60 USD a million; the other model has no price.
    assert left(guard) == (Decimal("0.0000255"), 0)


Call = Callable[[], Any]


def test_embeddings_and_responses_are_held_too(gpt: openai.OpenAI, claude: anthropic.Anthropic, provider: ProviderServer) -> None:
    calls: list[Call] = [
        lambda: gpt.responses.create(model="gpt-4o-mini", input="x", max_output_tokens=100),
        lambda: gpt.embeddings.create(model="text-embedding-3-small", input=["x" * 10_000]),
        lambda: claude.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=100),
        lambda: claude.messages.stream(model="claude-haiku-4-5", messages=ASK, max_tokens=100).__enter__(),
        lambda: gpt.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK),
    ]
    for call in calls:
        with tallystick.guard(max_tokens_per_call=20), pytest.raises(tallystick.BudgetExceeded):
            call()
    assert not provider.calls


def test_clients_of_other_makes(provider: ProviderServer) -> None:
    def google() -> Any:
        import google.genai as genai

        client = genai.Client(api_key="k", http_options={"base_url": provider.url})
        config = genai.types.GenerateContentConfig(max_output_tokens=100)
        return client.models.generate_content(model="gemini-2.5-pro", contents="hello", config=config)

    def mistral() -> Any:
        from mistralai.client import Mistral

        client = Mistral(api_key="k", server_url=provider.url)
        return client.chat.complete(model="mistral-large-latest", messages=ASK, max_tokens=100)

    def bedrock() -> Any:
        import boto3

        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=provider.url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        messages: Any = [{"role": "user", "content": [{"text": "hello"}]}]
        return client.converse(modelId="claude-lab", messages=messages, inferenceConfig={"maxTokens": 100})

    def cohere() -> Any:
        from cohere import ClientV2

        client = ClientV2(api_key="k", base_url=provider.url)
        return client.chat(model="command-r-plus-08-2024", messages=ASK, max_tokens=100)

    for call in (google, mistral, bedrock, cohere):
        provider.calls.clear()
        guard = tallystick.guard(max_tokens_per_session=90)
        with guard, pytest.raises(tallystick.BudgetExceeded) as stopped:
            call()
        assert not provider.calls, call
        assert stopped.value.wanted is not None
        assert 100 < stopped.value.wanted < 130
        with tallystick.guard(max_tokens_per_session=10_000) as guard:
            call()
            assert left(guard)[0] in (142, 1250), call
            assert left(guard)[1] == 0
