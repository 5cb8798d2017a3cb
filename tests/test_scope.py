"""The scope follows the flow of the program, and nothing else."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

import tallystick
from tallystick.collectors.carriers.baggage import MAX_ENTRIES, MAX_VALUE
from tallystick.collectors.scope import attribution, outgoing_baggage


def test_public_names() -> None:
    assert set(tallystick.__all__) == {
        "BudgetExceeded",
        "CircuitOpen",
        "Client",
        "asgi",
        "breaker",
        "cache_hit",
        "count_tokens",
        "estimate_cost",
        "flush",
        "flushed",
        "guard",
        "outgoing_baggage",
        "redact",
        "scope",
        "scope_rules",
        "status",
        "wsgi",
    }


def test_names_on_the_wire() -> None:
    with tallystick.scope(customer="c", feature="f", agent="a", team="t", user="u", session="s", env="prod", retries=3):
        assert attribution() == {
            "tallystick.customer": "c",
            "tallystick.feature": "f",
            "tallystick.agent": "a",
            "tallystick.team": "t",
            "tallystick.user": "u",
            "tallystick.session": "s",
            "tallystick.tag.env": "prod",
            "tallystick.tag.retries": "3",
        }
    assert attribution() == {}


def test_none_sets_nothing() -> None:
    with tallystick.scope(customer="outer"), tallystick.scope(customer=None, tag=None):
        assert attribution() == {"tallystick.customer": "outer"}


names = st.sampled_from(["customer", "feature", "agent", "team", "user", "session", "x", "y"])
scopes = st.lists(st.dictionaries(names, st.text(max_size=5), max_size=4), max_size=6)


@given(scopes)
def test_nested_scopes_are_a_merge_that_is_undone_in_order(layers: list[dict[str, str]]) -> None:
    def enter(depth: int, expected: dict[str, str]) -> None:
        assert {key.rpartition(".")[2]: value for key, value in attribution().items()} == expected
        if depth < len(layers):
            with tallystick.scope(**layers[depth]):
                enter(depth + 1, {**expected, **layers[depth]})
            assert {key.rpartition(".")[2]: value for key, value in attribution().items()} == expected

    enter(0, {})


def test_left_on_an_exception() -> None:
    with pytest.raises(KeyError), tallystick.scope(customer="c"):
        raise KeyError
    assert attribution() == {}


def test_one_object_in_many_threads_at_once() -> None:
    shared = tallystick.scope(customer="shared")
    inside = threading.Barrier(8)
    seen: list[tuple[int | None, dict[str, str]]] = []

    def work(number: int) -> None:
        with tallystick.scope(feature=str(number)), shared:
            inside.wait(10)
            seen.append((number, attribution()))
            inside.wait(10)
        seen.append((None, attribution()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [found for number, found in seen if number is None] == [{}] * 8
    for number, found in seen:
        if number is not None:
            assert found == {"tallystick.customer": "shared", "tallystick.feature": str(number)}
    assert len(seen) == 16


def test_tasks_inherit_and_do_not_mix() -> None:
    async def call(feature: str) -> dict[str, str]:
        async with tallystick.scope(feature=feature):
            await asyncio.sleep(0)
            return attribution()

    async def main() -> list[dict[str, str]]:
        with tallystick.scope(customer="c"):
            found = await asyncio.gather(*(call(str(number)) for number in range(20)), asyncio.to_thread(attribution))
        assert attribution() == {}
        return found

    *tasks, thread = asyncio.run(main())
    assert tasks == [{"tallystick.customer": "c", "tallystick.feature": str(number)} for number in range(20)]
    assert thread == {"tallystick.customer": "c"}


def test_decorated_function_keeps_name_result_and_exception() -> None:
    @tallystick.scope(feature="f")
    def add(one: int, two: int = 1) -> tuple[int, dict[str, str]]:
        """Adds."""
        return one + two, attribution()

    assert add(1, two=2) == (3, {"tallystick.feature": "f"})
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    with pytest.raises(TypeError):
        add("x")  # type: ignore[arg-type]
    assert attribution() == {}


def test_decorated_coroutine() -> None:
    @tallystick.scope(feature="f")
    async def call() -> dict[str, str]:
        await asyncio.sleep(0)
        return attribution()

    assert asyncio.iscoroutinefunction(call)
    assert asyncio.run(call()) == {"tallystick.feature": "f"}


def test_decorated_generator_has_the_scope_while_it_runs_only() -> None:
    @tallystick.scope(feature="f")
    def steps() -> Iterator[object]:
        received: object = None
        try:
            while True:
                received = yield received, attribution()
                if received == "stop":
                    return "returned"  # type: ignore[return-value]
        finally:
            closed.append(attribution())

    closed: list[dict[str, str]] = []
    inside = {"tallystick.feature": "f"}
    generator = steps()
    assert next(generator) == (None, inside)
    assert attribution() == {}
    assert generator.send(1) == (1, inside)  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as end:
        generator.send("stop")  # type: ignore[attr-defined]
    assert end.value.value == "returned"
    abandoned = steps()
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    assert closed == [inside, inside]
    thrown = steps()
    next(thrown)
    with pytest.raises(LookupError):
        thrown.throw(LookupError())  # type: ignore[attr-defined]


def test_decorated_async_generator_has_the_scope_while_it_runs_only() -> None:
    closed: list[dict[str, str]] = []
    inside = {"tallystick.feature": "f"}

    @tallystick.scope(feature="f")
    async def steps() -> AsyncIterator[object]:
        try:
            for number in range(3):
                try:
                    yield number, attribution()
                except LookupError:
                    yield "caught", attribution()
        finally:
            closed.append(attribution())

    async def main() -> None:
        assert [item async for item in steps()] == [(number, inside) for number in range(3)]
        abandoned = steps()
        async for _ in abandoned:
            assert attribution() == {}
            break
        await abandoned.aclose()  # type: ignore[attr-defined]
        thrown = steps()
        await anext(thrown)
        assert await thrown.athrow(LookupError()) == ("caught", inside)  # type: ignore[attr-defined]
        assert await anext(thrown) == (1, inside)
        await thrown.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())
    assert closed == [inside, inside, inside]


def test_left_in_another_context_than_entered_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    scope = tallystick.scope(customer="c")
    contextvars.copy_context().run(scope.__enter__)
    with tallystick.scope(customer="other"):
        scope.__exit__(None, None, None)
        assert attribution() == {"tallystick.customer": "other"}
    assert not caplog.records


def test_incoming_baggage_counts_where_it_is_allowed_and_the_scope_does_not_say() -> None:
    incoming = context.Context()
    for name in (
        "tallystick.customer",
        "tallystick.feature",
        "tallystick.tag.x",
        "tallystick.tenant",
        "tallystick.cost",
        "other",
    ):
        incoming = baggage.set_baggage(name, "incoming", incoming)
    token = context.attach(incoming)
    try:
        with tallystick.scope(feature="mine"):
            assert attribution() == {
                "tallystick.customer": "incoming",
                "tallystick.feature": "mine",
                "tallystick.tag.x": "incoming",
            }
    finally:
        context.detach(token)


def test_incoming_baggage_is_bounded() -> None:
    incoming = baggage.set_baggage("tallystick.customer", "x" * 10_000, context.Context())
    for number in range(1000):
        incoming = baggage.set_baggage(f"tallystick.tag.{number}", "x", incoming)
    found = attribution(incoming)
    assert len(found) == MAX_ENTRIES
    assert found["tallystick.customer"] == "x" * MAX_VALUE


def test_a_context_made_from_scratch_does_not_lose_the_scope() -> None:
    with tallystick.scope(customer="c"):
        assert attribution(context.Context()) == {"tallystick.customer": "c"}


@example(customer="\ud800", tag="\udfff")
@given(st.text(max_size=20), st.text(max_size=20))
def test_outgoing_baggage_comes_back_as_it_was(customer: str, tag: str) -> None:
    # The propagator strips what it reads, as the specification allows for.
    with tallystick.scope(customer=customer, tag=tag):
        header = outgoing_baggage()
    assert attribution(W3CBaggagePropagator().extract({"baggage": header}, context.Context())) == {
        "tallystick.customer": customer.encode(errors="replace").decode().strip(),
        "tallystick.tag.tag": tag.encode(errors="replace").decode().strip(),
    }


def test_a_value_that_cannot_be_read_is_the_scopes_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("broken")

    with tallystick.scope(customer=Broken()):  # type: ignore[arg-type]
        assert attribution() == {}
    monkeypatch.setenv("TALLYSTICK_STRICT", "1")
    with pytest.raises(RuntimeError, match="broken"):
        tallystick.scope(customer=Broken())  # type: ignore[arg-type]
