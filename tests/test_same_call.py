"""Which spans tell of one call: the pure judgement, with times in milliseconds."""

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.ingest.same_call import Identity, Names, Rival, Verdict, judge

CLIENT, NATIVE, FRAMEWORK, GATEWAY, ENGINE = 4, 5, 3, 2, 1
NOBODY = ("",) * 6
GPT = ("openai", "gpt-4o", "", "")


def rival(name: str, begin: float = 0, end: float = 100, *, trace: str = "t", parent: str = "", **given: Any) -> Rival:
    """A call of 100 and 10 tokens, as one span of the openai instrumentation of service `app` tells of it."""
    told: dict[str, Any] = {
        "stored": False,
        "response_id": "",
        "process": "p",
        "service": "app",
        "scope": "openai",
        "layer": CLIENT,
        "is_log": False,
        "model": "gpt-4o",
        "total_input": 100,
        "output_tokens": 10,
        "usage_source": "provider",
        "detail": 0,
        "who": NOBODY,
        "what": GPT,
    } | given
    return Rival(
        identity=Identity("default", trace.encode().ljust(16), name.encode().ljust(8)),
        parent_span_id=parent.encode().ljust(8) if parent else b"",
        begin_ns=int(begin * 1e6),
        end_ns=int(end * 1e6),
        **told,
    )


UNKNOWN: dict[str, Any] = {"total_input": None, "output_tokens": None, "usage_source": "missing"}
REFUSED: dict[str, Any] = {"total_input": 0, "output_tokens": 0, "usage_source": "none"}


def lost(*rivals: Rival) -> set[str]:
    """Names of the spans that aren't entered; the same whatever their order."""
    verdicts = [judge(order) for order in itertools.islice(itertools.permutations(rivals), 24)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    return {identity.span_id.decode().strip() for identity in verdicts[0].lost}


def later(verdict: Verdict, *rivals: Rival) -> list[Rival]:
    """Those that stand, as the next batch finds them in the ledger."""
    return [dataclasses.replace(r, stored=True) for r in rivals if r.identity not in verdict.lost]


def test_a_single_call_stands() -> None:
    assert judge([rival("a")]) == Verdict()
    assert judge([]) == Verdict()


class TestOneAnswer:
    def test_two_instrumentations_in_two_traces_name_the_same_answer(self) -> None:
        client = rival("client", trace="1", response_id="r")
        native = rival("native", 1, 99, trace="2", scope="sdk", layer=NATIVE, response_id="r")
        assert lost(client, native) == {"client"}

    def test_machines_whose_clocks_differ_by_a_second(self) -> None:
        client = rival("client", 0, 100, response_id="r")
        gateway = rival("gateway", 1090, 1110, trace="2", service="proxy", scope="litellm", layer=GATEWAY, response_id="r")
        assert lost(client, gateway) == {"gateway"}

    def test_an_old_answer_given_again_is_another_call(self) -> None:
        first = rival("first", 0, 100, response_id="r")
        assert not lost(first, rival("again", 5000, 5001, trace="2", scope="sdk", response_id="r"))

    def test_a_chain_of_repetitions_doesnt_reach_further_than_each(self) -> None:
        """Five of one answer, a second apart, by one instrumentation: each is fetched again, not made at once."""
        polls = [rival(f"p{i}", i * 1000, i * 1000 + 10, trace=str(i), response_id="r", **UNKNOWN) for i in range(4)]
        done = rival("done", 4000, 4010, trace="4", response_id="r")
        assert lost(*polls, done) == {"p0", "p1", "p2", "p3"}

    def test_an_engine_that_numbers_from_a_small_range(self) -> None:
        """Two calls at once, of one instrumentation, with one id and other usage, or at least overlapping."""
        assert not lost(rival("a", 0, 100, trace="1", response_id="7"), rival("b", 10, 90, trace="2", response_id="7"))
        assert not lost(
            rival("a", 0, 100, trace="1", response_id="7"),
            rival("b", 150, 190, trace="2", response_id="7", total_input=5),
        )

    def test_many_calls_at_once_with_one_id_seen_twice(self) -> None:
        clients = [rival(f"c{i}", i, 100 + i, trace=f"c{i}", response_id="7") for i in range(5)]
        natives = [rival(f"n{i}", i + 0.5, 99.5 + i, trace=f"n{i}", scope="sdk", layer=NATIVE, response_id="7") for i in range(5)]
        assert lost(*clients, *natives) == {f"c{i}" for i in range(5)}

    def test_tenants_never_meet(self) -> None:
        one = rival("one", response_id="r")
        other = dataclasses.replace(one, identity=one.identity._replace(tenant="other"), scope="sdk")
        assert not lost(one, other)


class TestNested:
    def test_parent_and_child_with_equal_usage(self) -> None:
        framework = rival("framework", scope="langchain", layer=FRAMEWORK)
        client = rival("client", 1, 99, parent="framework")
        assert lost(framework, client) == {"framework"}

    def test_of_one_instrumentation(self) -> None:
        """LiteLLM tells of a call and, inside it and as long, of its raw request."""
        assert lost(rival("call", scope="litellm"), rival("raw", scope="litellm", parent="call", **UNKNOWN)) == {"raw"}

    def test_the_span_that_knows_more_stays(self) -> None:
        parent = rival("parent", **UNKNOWN)
        assert lost(parent, rival("child", 1, 99, parent="parent", scope="vllm", service="engine", layer=ENGINE)) == {"parent"}
        parent = rival("parent", detail=3)
        assert lost(parent, rival("child", 1, 99, parent="parent", scope="sdk", layer=NATIVE)) == {"child"}
        estimated = rival("parent", usage_source="estimated", total_input=93, detail=3)
        assert lost(estimated, rival("child", 1, 99, parent="parent", scope="sdk")) == {"parent"}

    def test_three_layers(self) -> None:
        framework = rival("framework", 0, 100, scope="langchain", layer=FRAMEWORK)
        client = rival("client", 1, 99, parent="framework")
        engine = rival("engine", 5, 95, parent="client", scope="vllm", service="engine", layer=ENGINE, model="")
        assert lost(framework, client, engine) == {"framework", "engine"}

    def test_three_layers_of_one_length(self) -> None:
        """Settled from the innermost, though no time tells which that is."""
        outer = rival("a", scope="langchain", layer=FRAMEWORK)
        assert lost(outer, rival("b", parent="a", scope="litellm"), rival("c", parent="b")) == {"a", "b"}

    def test_the_layer_between_is_told_by_no_span(self) -> None:
        """The gateway's parent is an HTTP span, which isn't sent."""
        client = rival("client")
        gateway = rival("gateway", 5, 95, parent="http", scope="litellm", service="proxy", layer=GATEWAY, response_id="other")
        assert lost(dataclasses.replace(client, response_id="mine"), gateway) == {"gateway"}

    def test_an_ancestor_further_up(self) -> None:
        framework = rival("framework", scope="langchain", layer=FRAMEWORK)
        retry = rival("retry", 1, 99, parent="framework", scope="langchain", layer=FRAMEWORK, **UNKNOWN)
        client = rival("client", 2, 98, parent="retry")
        assert lost(framework, retry, client) == {"framework", "retry"}

    def test_a_wrapper_that_repeats_the_totals(self) -> None:
        wrapper = rival("wrapper", 0, 300, total_input=300, output_tokens=30)
        calls = [
            rival("one", 1, 100, parent="wrapper", total_input=100, output_tokens=10),
            rival("two", 110, 290, parent="wrapper", total_input=200, output_tokens=20),
        ]
        assert lost(wrapper, *calls) == {"wrapper"}

    def test_a_wrapper_of_more_calls_than_are_looked_at_in_time(self) -> None:
        calls = [rival(f"{i:08}", 2 * i, 2 * i + 1, parent="wrapper") for i in range(500)]
        wrapper = rival("wrapper", 0, 2000, total_input=50_000, output_tokens=5000)
        assert {identity.span_id for identity in judge([wrapper, *calls]).lost} == {wrapper.identity.span_id}

    def test_a_wrapper_that_says_nothing(self) -> None:
        wrapper = rival("wrapper", 0, 300, **UNKNOWN)
        assert lost(wrapper, rival("one", 1, 99, parent="wrapper"), rival("two", 110, 290, parent="wrapper")) == {"wrapper"}

    def test_a_wrapper_whose_calls_come_one_after_another(self) -> None:
        wrapper = rival("wrapper", 0, 300, total_input=300, output_tokens=30)
        one = rival("one", 1, 100, parent="wrapper")
        two = rival("two", 110, 290, parent="wrapper", total_input=200, output_tokens=20)
        first = judge([wrapper, one])
        assert not first.lost
        assert judge([*later(first, wrapper, one), two]).lost == {wrapper.identity: True}

    def test_a_call_that_makes_another_of_its_own(self) -> None:
        """A tool inside a call asks another model, or the same with another prompt."""
        outer = rival("outer", 0, 500)
        assert not lost(outer, rival("tool", 100, 200, parent="outer", model="claude-opus-5", total_input=100))
        assert not lost(outer, rival("tool", 100, 200, parent="outer", total_input=7))

    def test_a_call_that_makes_several_of_its_own(self) -> None:
        outer = rival("outer", 0, 500)
        tools = [rival(f"tool{i}", 100 * i, 100 * i + 50, parent="outer", total_input=7) for i in (1, 2)]
        assert not lost(outer, *tools)

    def test_calls_at_once_of_one_instrumentation(self) -> None:
        """The same prompt many times, as in sampling: equal usage, one inside the other, side by side."""
        assert not lost(*(rival(f"c{i}", i, 100 - i, parent="agent") for i in range(4)))

    def test_calls_at_once_of_two_services(self) -> None:
        assert not lost(rival("a", 0, 100, parent="x", service="one"), rival("b", 5, 90, parent="y", service="two"))

    def test_answers_with_two_ids_beside_each_other(self) -> None:
        one = rival("one", 0, 100, response_id="r1")
        assert not lost(one, rival("two", 5, 90, scope="sdk", layer=NATIVE, response_id="r2"))

    @pytest.mark.parametrize("linked", [True, False], ids=["parent and child", "side by side"])
    def test_calls_at_once_seen_twice_in_one_trace(self, linked: bool) -> None:
        """Equal usage, all inside the first: each finds its own other half."""
        spans = []
        for i in range(4):
            spans.append(rival(f"c{i}", 5 * i, 100 - 5 * i, parent="agent"))
            spans.append(rival(f"n{i}", 5 * i + 1, 99 - 5 * i, parent=f"c{i}" if linked else "agent", scope="sdk", layer=NATIVE))
        assert lost(*spans) == {"c0", "c1", "c2", "c3"}

    @pytest.mark.parametrize("linked", [True, False], ids=["parent and child", "side by side"])
    def test_calls_in_step_seen_twice_in_one_trace(self, linked: bool) -> None:
        """As long as each other, and begun while the others run."""
        spans = []
        for i in range(4):
            spans.append(rival(f"c{i}", i, 100 + i, parent="agent"))
            spans.append(rival(f"n{i}", i + 0.5, 99.5 + i, parent=f"c{i}" if linked else "agent", scope="sdk", layer=NATIVE))
        assert lost(*spans) == {"c0", "c1", "c2", "c3"}

    def test_a_stored_call_doesnt_take_the_next_one(self) -> None:
        """The other half of the stored one was dropped when it was entered; the new call has both its halves."""
        stored = rival("n0", 0, 100, scope="sdk", layer=NATIVE, parent="agent", stored=True)
        client = rival("c1", 10, 90, parent="agent")
        native = rival("n1", 11, 89, scope="sdk", layer=NATIVE, parent="agent")
        assert lost(stored, client, native) == {"c1"}

    def test_spans_that_are_each_others_parents(self) -> None:
        assert not lost(rival("a", parent="b"), rival("b", 1, 99, parent="a"))
        assert not lost(rival("a", parent="a"))

    def test_a_refused_call_told_twice(self) -> None:
        client = rival("client", **REFUSED)
        assert lost(client, rival("native", 1, 99, parent="client", scope="sdk", layer=NATIVE, **REFUSED)) == {"client"}

    def test_two_answers_without_usage_are_two_calls(self) -> None:
        outer = rival("outer", response_id="r1", **UNKNOWN)
        assert not lost(outer, rival("inner", 1, 99, parent="outer", response_id="r2", **UNKNOWN))


class TestOneProcess:
    """Spans of two instrumentations that share no trace."""

    def test_one_inside_the_other(self) -> None:
        outer = rival("chain", trace="1", scope="langchain", layer=FRAMEWORK)
        assert lost(outer, rival("client", 1, 99, trace="2")) == {"chain"}

    def test_another_process(self) -> None:
        outer = rival("chain", trace="1", scope="langchain", layer=FRAMEWORK)
        assert not lost(outer, rival("client", 1, 99, trace="2", process="q"))

    def test_another_usage(self) -> None:
        outer = rival("chain", trace="1", scope="langchain", layer=FRAMEWORK)
        assert not lost(outer, rival("client", 1, 99, trace="2", output_tokens=11))

    def test_inside_spans_of_the_application(self) -> None:
        """They would share its trace."""
        outer = rival("chain", trace="1", scope="langchain", layer=FRAMEWORK)
        assert not lost(outer, rival("client", 1, 99, trace="2", parent="handler"))

    def test_one_instrumentation_tells_of_each_call_once(self) -> None:
        assert not lost(*(rival(f"c{i}", i, 100 - i, trace=str(i)) for i in range(4)))

    def test_two_that_name_the_answer(self) -> None:
        """They would have the same id."""
        outer = rival("chain", trace="1", scope="langchain", layer=FRAMEWORK, response_id="r1")
        assert not lost(outer, rival("client", 1, 99, trace="2", response_id="r2"))

    @pytest.mark.parametrize("winner", [FRAMEWORK, NATIVE])
    def test_calls_at_once_with_equal_usage(self, winner: int) -> None:
        spans = []
        for i in range(5):
            spans.append(rival(f"c{i}", 5 * i, 100 - 5 * i, trace=f"c{i}"))
            spans.append(rival(f"x{i}", 5 * i + 1, 99 - 5 * i, trace=f"x{i}", scope="other", layer=winner))
        kept = "x" if winner == NATIVE else "c"
        assert len(lost(*spans)) == 5
        assert all(not name.startswith(kept) for name in lost(*spans))

    @pytest.mark.parametrize("winner", [FRAMEWORK, NATIVE])
    def test_in_batches(self, winner: int) -> None:
        """A long call is entered; then come shorter ones that ran inside its time, both halves of each at once."""
        first = [rival("c0", 0, 1000, trace="c0"), rival("x0", 1, 999, trace="x0", scope="other", layer=winner)]
        ledger = later(judge(first), *first)
        assert len(ledger) == 1
        for i in range(1, 4):
            pair = [
                rival(f"c{i}", 100 * i, 100 * i + 50, trace=f"c{i}"),
                rival(f"x{i}", 100 * i + 1, 100 * i + 49, trace=f"x{i}", scope="other", layer=winner),
            ]
            ledger = later(judge([*ledger, *pair]), *ledger, *pair)
            assert len(ledger) == i + 1

    def test_what_is_stored_isnt_taken_back_for_another_call(self) -> None:
        stored = rival("x0", 1, 999, trace="x0", scope="other", stored=True)
        client = rival("c1", 100, 150, trace="c1", detail=3)
        other = rival("x1", 101, 149, trace="x1", scope="other")
        assert lost(stored, client, other) == {"x1"}

    def test_in_halves(self) -> None:
        """All outer ones first, then all inner ones."""
        outer = [rival(f"c{i}", 10 * i, 10 * i + 5, trace=f"c{i}") for i in range(5)]
        inner = [rival(f"x{i}", 10 * i + 1, 10 * i + 4, trace=f"x{i}", scope="other", layer=NATIVE) for i in range(5)]
        ledger = later(judge(outer), *outer)
        assert len(later(judge([*ledger, *inner]), *ledger, *inner)) == 5


class TestStreams:
    """Logfire: a span of the request, without usage, and a log, with usage, that begins where the span ends."""

    @staticmethod
    def stream(i: int, sent: float, headers: float, end: float, trace: str | None = None, **given: Any) -> tuple[Rival, Rival]:
        scope = {"scope": "logfire.openai", "parent": "request" if trace else ""} | given
        return (
            rival(f"s{i}", sent, headers, trace=trace or f"s{i}", **scope | UNKNOWN),
            rival(f"l{i}", headers + 0.6, end, trace=trace or f"l{i}", is_log=True, **scope),
        )

    @pytest.mark.parametrize("trace", [None, "t"], ids=["traces of their own", "one trace"])
    @pytest.mark.parametrize("headers", [2, 400, 30_000])
    def test_however_long_the_answer_takes_to_begin(self, headers: float, trace: str | None) -> None:
        assert lost(*self.stream(1, 0, headers, headers + 500, trace)) == {"s1"}

    def test_without_usage_the_log_still_knows_the_end(self) -> None:
        assert lost(*self.stream(1, 0, 2, 500, **UNKNOWN)) == {"s1"}

    def test_one_after_another(self) -> None:
        streams = [self.stream(i, 700 * i, 700 * i + 2, 700 * i + 600) for i in range(4)]
        assert lost(*itertools.chain(*streams)) == {"s0", "s1", "s2", "s3"}
        ledger: list[Rival] = []
        for span, log in streams:
            for one in (span, log):
                ledger = later(judge([*ledger, one]), *ledger, one)
        assert {r.identity.span_id.strip() for r in ledger} == {b"l0", b"l1", b"l2", b"l3"}

    def test_at_once(self) -> None:
        streams = [self.stream(i, i, 50 + 3 * i, 900 - i) for i in range(5)]
        assert lost(*itertools.chain(*streams)) == {f"s{i}" for i in range(5)}

    def test_logs_before_their_spans(self) -> None:
        streams = [self.stream(i, 700 * i, 700 * i + 2, 700 * i + 600) for i in range(4)]
        ledger = later(Verdict(), *(log for _, log in streams))
        assert judge([*ledger, *(span for span, _ in streams)]).lost == {span.identity: False for span, _ in streams}

    def test_a_call_that_isnt_streamed_between_two_streams(self) -> None:
        streams = [*self.stream(0, 0, 2, 500), *self.stream(1, 800, 802, 1300)]
        call = rival("call", 510, 700, trace="call", scope="logfire.openai")
        failed = rival("failed", 510, 700, trace="failed", scope="logfire.openai", **REFUSED)
        assert lost(*streams, call, failed) == {"s0", "s1"}

    def test_a_call_that_ends_as_a_stream_begins(self) -> None:
        _, log = self.stream(0, 0, 2, 500)
        assert not lost(dataclasses.replace(log, stored=True), rival("call", -300, 1, trace="call", scope="logfire.openai"))

    def test_beside_the_sdks_own_span(self) -> None:
        """Its trace is that of the request's span, and it ends a little before the log."""
        span, log = self.stream(0, 0, 500, 1000)
        native = rival("native", 0.3, 998, trace="s0", parent="s0", scope="sdk", layer=NATIVE, detail=3, response_id="msg")
        assert lost(span, log, native) == {"s0", "l0"}
        for order in itertools.permutations([span, log, native]):
            ledger: list[Rival] = []
            for one in order:
                ledger = later(judge([*ledger, one]), *ledger, one)
            assert len(ledger) == 1, [r.identity.span_id for r in order]


class TestWho:
    def test_the_one_that_stays_inherits(self) -> None:
        client = rival("client", who=("acme", "chat", "", "", "u", ""))
        native = rival("native", 1, 99, parent="client", scope="sdk", layer=NATIVE, who=("", "", "planner", "", "v", ""))
        verdict = judge([client, native])
        assert verdict.heirs == {native.identity: Names(("acme", "chat", "planner", "", "v", ""), GPT)}

    def test_over_three_layers(self) -> None:
        framework = rival("framework", scope="langchain", layer=FRAMEWORK, who=("acme", "", "", "", "", ""))
        client = rival("client", 1, 99, parent="framework", who=("", "chat", "", "", "", ""))
        native = rival("native", 2, 98, parent="client", scope="sdk", layer=NATIVE)
        assert judge([framework, client, native]).heirs == {native.identity: Names(("acme", "chat", "", "", "", ""), GPT)}

    def test_a_wrapper_that_inherited_is_no_call(self) -> None:
        wrapper = rival("wrapper", 0, 300, scope="langchain", detail=3, response_id="r", total_input=200, output_tokens=20)
        same = rival("same", 1, 299, trace="2", scope="sdk", response_id="r", total_input=200, who=("acme", *NOBODY[1:]))
        calls = [rival("one", 1, 100, parent="wrapper"), rival("two", 110, 290, parent="wrapper")]
        verdict = judge([wrapper, same, *calls])
        assert verdict.lost.keys() == {wrapper.identity, same.identity}
        assert not verdict.heirs

    def test_of_a_stored_call_nothing_is_changed(self) -> None:
        stored = rival("native", 1, 99, parent="client", scope="sdk", layer=NATIVE, stored=True)
        client = rival("client", who=("acme", "", "", "", "", ""))
        assert judge([stored, client]) == Verdict(lost={client.identity: False})

    def test_from_a_stored_call_that_is_voided(self) -> None:
        stored = rival("client", stored=True, who=("acme", "", "", "", "", ""))
        native = rival("native", 1, 99, parent="client", scope="sdk", detail=3, layer=NATIVE)
        assert judge([stored, native]) == Verdict(
            {stored.identity: True}, {native.identity: Names(("acme", "", "", "", "", ""), GPT)}
        )

    def test_a_server_that_names_no_model_has_it_from_its_client(self) -> None:
        client = rival("client", response_id="r", what=("openai", "llama", "llama-8b", "flex"), **UNKNOWN)
        server = rival(
            "server",
            1,
            99,
            trace="2",
            scope="vllm",
            service="gpu",
            layer=ENGINE,
            response_id="r",
            model="",
            what=("vllm", "", "", ""),
        )
        assert judge([client, server]) == Verdict({client.identity: False}, {server.identity: client.names})

    def test_a_model_that_is_named_stays_with_what_it_is_priced_by(self) -> None:
        client = rival("client", response_id="r", what=("openai", "llama", "llama-8b", "flex"), **UNKNOWN)
        server = rival(
            "server", 1, 99, trace="2", scope="vllm", service="gpu", layer=ENGINE, response_id="r", what=("vllm", "", "llama", "")
        )
        assert judge([client, server]) == Verdict({client.identity: False})


@st.composite
def batches(draw: st.DrawFn) -> list[Rival]:
    """Up to a dozen spans with everything about them likely to collide."""
    made = []
    for i in range(draw(st.integers(1, 12))):
        begin = draw(st.integers(0, 200))
        usage = draw(
            st.sampled_from([{}, UNKNOWN, REFUSED, {"total_input": 200, "output_tokens": 20}, {"usage_source": "partial"}])
        )
        made.append(
            rival(
                f"s{i}",
                begin,
                begin + draw(st.integers(0, 300)),
                trace=draw(st.sampled_from("xyz")),
                parent=draw(st.sampled_from(["", *(f"s{j}" for j in range(12))])),
                stored=draw(st.booleans()),
                response_id=draw(st.sampled_from(["", "", "r1", "r2"])),
                process=draw(st.sampled_from("pq")),
                service=draw(st.sampled_from(["app", "proxy"])),
                scope=draw(st.sampled_from(["openai", "sdk", "langchain"])),
                layer=draw(st.sampled_from([ENGINE, FRAMEWORK, CLIENT, NATIVE])),
                is_log=draw(st.integers(0, 5)) == 0,
                model=draw(st.sampled_from(["", "gpt-4o", "gpt-4o-2024", "claude"])),
                detail=draw(st.integers(0, 2)),
                who=(draw(st.sampled_from(["", "acme", "globex"])), *NOBODY[1:]),
                what=draw(st.sampled_from([GPT, ("", "", "", ""), ("azure", "gpt-4o", "", "flex")])),
                **usage,
            )
        )
    return made


def connected(one: Rival, other: Rival) -> bool:
    """Anything at all that could make them one call."""
    return one.identity.tenant == other.identity.tenant and (
        one.identity.trace_id == other.identity.trace_id
        or (one.response_id != "" and one.response_id == other.response_id)
        or one.process == other.process
    )


@settings(max_examples=300, deadline=None)
@given(batches(), st.randoms())
def test_any_batch(spans: list[Rival], random: Any) -> None:
    verdict = judge(spans)
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert judge(shuffled) == verdict, "depends on the order"
    by_identity = {r.identity: r for r in spans}
    standing = [r for r in spans if r.identity not in verdict.lost]
    for identity, stored in verdict.lost.items():
        assert by_identity[identity].stored is stored
        reached, known = {identity}, [by_identity[identity]]
        while known:
            one = known.pop()
            more = [r for r in spans if r.identity not in reached and connected(one, r)]
            reached |= {r.identity for r in more}
            known += more
        assert any(r.identity in reached for r in standing), "lost without a winner"
    for identity, names in verdict.heirs.items():
        heir = by_identity[identity]
        assert not heir.stored
        assert identity not in verdict.lost
        assert len(names.who) == len(NOBODY)
        assert names != heir.names
        assert all(mine in ("", inherited) for mine, inherited in zip(heir.who, names.who, strict=True))
        assert names.what == heir.what or not (heir.what[1] or heir.what[2])


@settings(max_examples=300, deadline=None)
@given(batches())
def test_what_lost_to_a_stored_span_loses_again(spans: list[Rival]) -> None:
    """An exporter that sends a batch again: nothing that stands is voided, and what stood alone stays alone."""
    ledger = later(judge(spans), *spans)
    again = judge(ledger)
    assert len(later(again, *ledger)) <= len(ledger)
    settled = later(again, *ledger)
    assert len(settled) >= 1


@pytest.mark.parametrize("shape", ["chain", "heap", "wrapper", "process"])
def test_a_flood_in_one_trace_is_judged_in_bounded_work(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons, not seconds: at most a thousand or so a span, whatever its shape."""
    from tallystick.ingest import same_call

    compared = 0
    agree = same_call._agree

    def counted(one: Rival, other: Rival) -> bool:
        nonlocal compared
        compared += 1
        return agree(one, other)

    monkeypatch.setattr(same_call, "_agree", counted)
    number = 4000
    spans = [
        rival(
            f"{i:08}",
            i * 0.001,
            100_000 - i * 0.001,
            trace=f"{i:016}" if shape == "process" else "t",
            parent=f"{i - 1:08}" if shape == "chain" and i else "00000000" if shape == "wrapper" and i else "",
            scope=f"scope{i % 3}",
            total_input=i,
        )
        for i in range(number)
    ]
    judge(spans)
    assert compared < 200 * number
