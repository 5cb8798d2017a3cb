"""The figures of a stage: what they are of, and what speaks against them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_stages import HEALTHY, MS, SECOND, answer, poisson, record, sample, stage

from tallystick.probes.config import Target
from tallystick.probes.figures.definitions import DEFINITIONS, definition
from tallystick.probes.figures.percentiles import Figure
from tallystick.probes.figures.rates import rate, shares, window
from tallystick.probes.figures.summary import StageSummary, summarise
from tallystick.probes.records import LoadPoint, Outcome, Record, Usage

TARGET = Target(ttft_ms=150, tpot_ms=20)


def figure(summary: StageSummary, name: str) -> Figure:
    return summary.figures[name]


def failing(records: Sequence[Record], outcome: Outcome, numbers: range) -> list[Record]:
    return [replace(one, outcome=outcome, usage=None) if one.number in numbers else one for one in records]


def test_a_stage_that_went_well() -> None:
    summary = summarise(stage(poisson(1)), TARGET)
    assert summary.valid
    assert summary.reasons == summary.notes == ()
    assert summary.outcomes == {"ok": 200}
    assert summary.first_kinds == {"content": 200}
    assert summary.tokens.by_source == {"usage": 200}
    assert summary.value("ttft_p50") == pytest.approx(80, rel=0.1)
    assert summary.value("tpot_p50") == pytest.approx(10)
    assert (figure(summary, "ttft_p99").value, figure(summary, "ttft_p99").needs) == (None, 299)
    assert summary.value("nothing") is None


def test_each_figure_has_a_definition() -> None:
    summary = summarise(stage(poisson(1)), TARGET)
    assert {definition(name) for name in summary.figures} == set(DEFINITIONS.values())


def test_queueing_shows_from_the_schedule_and_not_from_sending() -> None:
    """An engine that takes one request at a time, 100 ms each, asked each 50 ms by a client that waits for it: coordinated omission."""
    waited = [answer(100 * i, 90, gap_ms=1, number=i, scheduled_ns=50 * i * MS) for i in range(60)]
    summary = summarise(stage(waited, LoadPoint("constant", rate=20)), TARGET)
    assert summary.value("ttft_p50") == pytest.approx(90)
    assert summary.value("ttft_scheduled_p50") == pytest.approx(90 + 50 * 29.5)
    assert summary.goodput is not None
    assert summary.goodput.good == 2
    assert any("the client was late" in reason for reason in summary.reasons)


def test_a_closed_loop_has_no_schedule() -> None:
    records = [replace(one, scheduled_ns=None) for one in poisson(1, 60)]
    summary = summarise(stage(records, LoadPoint("closed", concurrency=1)), TARGET)
    assert (figure(summary, "ttft_scheduled_p50").value, figure(summary, "ttft_scheduled_p50").n) == (None, 0)
    assert summary.offered_rate is None
    assert summary.valid


def test_failures_are_not_good_and_cancelled_ones_neither() -> None:
    records = failing(failing(poisson(1, 100), Outcome.TIMED_OUT, range(4)), Outcome.CANCELLED, range(90, 98))
    summary = summarise(stage(records), Target(ttft_ms=10_000))
    assert summary.outcomes == {"ok": 88, "timed_out": 4, "cancelled": 8}
    assert summary.goodput is not None
    assert (summary.goodput.good, summary.goodput.judged, summary.goodput.missed) == (88, 92, {"failed": 4})
    assert summary.value("good_share") == 88 / 92
    assert figure(summary, "ttft_p50").n == 88
    assert summary.valid
    assert summary.censored
    assert (
        "8 of 100 requests were under way when it ended: they are in no latency, and it looks better than it is" in summary.notes
    )


def test_what_an_overloaded_engine_left_undone_has_missed() -> None:
    """Asked 20 a second, it does 10; the stage ends at 6 s, and who waits by then has waited too long, but for the last ones."""
    asked = [answer(50 * i, 50 * i + 90, gap_ms=1, number=i) for i in range(120)]
    records = [
        one if one.ended_ns <= 6 * SECOND else replace(one, outcome=Outcome.CANCELLED, ended_ns=6 * SECOND, events=(), usage=None)
        for one in asked
    ]
    summary = summarise(stage(records, LoadPoint("constant", rate=20), ended="limit"), Target(ttft_ms=1_000))
    assert summary.valid
    assert summary.censored
    assert summary.goodput is not None
    assert summary.outcomes == {"ok": 60, "cancelled": 60}
    assert (summary.goodput.good, summary.goodput.judged) == (19, 100)
    assert summary.answered_rate == pytest.approx(10)


def test_nothing_good_is_a_goodput_of_0_and_nothing_answered_is_none() -> None:
    none_good = summarise(stage(poisson(1, 40)), Target(ttft_ms=0.1))
    assert none_good.value("good_requests_per_s") == 0
    assert none_good.value("good_share") == 0
    refused = summarise(stage(failing(poisson(1, 40), Outcome.REFUSED, range(40))), TARGET)
    assert refused.window is None
    assert refused.value("requests_per_s") is None
    assert refused.value("good_share") == 0
    assert refused.reasons == ("all 40 requests failed",)


def test_tokens_say_who_counted_them() -> None:
    records = [
        replace(one, usage=None, counted_output=11 if one.number < 10 else None) if one.number < 13 else one
        for one in poisson(1, 100)
    ]
    summary = summarise(stage(records), Target(tpot_ms=20))
    assert summary.tokens.by_source == {"counted": 10, "unknown": 3, "usage": 87}
    assert summary.tokens.output == 97 * 11
    assert summary.notes[0] == "97 of 100 answers told their output tokens: token rates are at least what is shown"
    assert summary.goodput is not None
    assert (summary.goodput.unjudged, summary.goodput.judged) == (3, 97)
    untold = summarise(stage([replace(one, usage=None) for one in records[20:]]), TARGET)
    assert untold.tokens.output is None
    assert untold.value("output_tokens_per_s") is None
    assert untold.value("tpot_p50") is None
    assert untold.value("requests_per_s") is not None


def test_an_engine_that_counts_wrongly_is_told() -> None:
    records = [replace(one, counted_output=11, usage=Usage(100, 0, 40, None)) for one in poisson(1, 50)]
    summary = summarise(stage(records), None)
    assert summary.tokens.miscounted == 50
    assert any("doesn't find in their text" in note for note in summary.notes)


def test_short_answers_are_told() -> None:
    summary = summarise(stage([replace(one, output_tokens=64) for one in poisson(1, 50)]), None)
    assert (summary.tokens.as_asked, summary.tokens.asked_output) == (0, 3_200)
    assert "answers had 550 tokens of 3,200 asked: the engine stops before" in summary.notes


def test_rates_leave_out_both_ends() -> None:
    """Closed loop of 8, each 1 s, 80 tokens a second each: at the ends fewer than 8 are under way, in between it is 640 tokens/s."""
    tokens = 81
    records = [
        answer(
            1_000 * (i // 8) + (i % 8),
            0.1,
            gap_ms=12.4,
            tokens=tokens,
            number=i,
            scheduled_ns=None,
            usage=Usage(100, 0, tokens, None),
        )
        for i in range(84)
    ]
    summary = summarise(stage(records, LoadPoint("closed", concurrency=8)), None)
    assert summary.window is not None
    assert summary.window.steady
    assert summary.value("output_tokens_per_s") == pytest.approx(8 * 81, rel=0.03)
    assert summary.value("requests_per_s") == pytest.approx(8, rel=0.03)
    assert summary.value("input_tokens_per_s") == pytest.approx(800, rel=0.03)


def test_intervals_of_rates_cover_the_true_one() -> None:
    covered = 0
    for seed in range(80):
        records = poisson(seed, 150, rate=10)
        over = window(records)
        assert over is not None
        found = rate("requests_per_s", "requests/s", over, shares(records, over), [1] * len(records))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 10 <= found.high
    assert 0.87 <= covered / 80 <= 0.999


def test_an_overloaded_engine_shows_its_own_rate_not_the_loads() -> None:
    """Asked 20 a second, it does 10: answers end each 100 ms, though requests come each 50."""
    records = [answer(50 * i, 50 * i + 90, gap_ms=1, number=i) for i in range(200)]
    summary = summarise(stage(records, LoadPoint("constant", rate=20)), None)
    assert summary.offered_rate == pytest.approx(20)
    assert summary.answered_rate == pytest.approx(10)
    assert summary.value("requests_per_s") == pytest.approx(10, rel=0.03)


def test_a_stage_that_is_all_ramp_says_so() -> None:
    records = [answer(i, 5_000, number=i) for i in range(20)]
    summary = summarise(stage(records), None)
    assert summary.window is not None
    assert not summary.window.steady
    assert any("100% of it ramp" in note for note in summary.notes)
    assert summary.value("requests_per_s") == pytest.approx(20 / 5.119, rel=0.01)
    assert figure(summary, "requests_per_s").low is None
    tail = [*poisson(1, 60, rate=20), answer(3_000, 30_000, number=60)]
    assert (over := window(tail)) is not None
    assert not over.steady


@given(st.integers(0, 10_000), st.integers(30, 120), st.floats(0.5, 50))
@settings(max_examples=30, deadline=None)
def test_rates_are_of_what_lies_in_the_window(seed: int, count: int, rate: float) -> None:
    """Whole where it ended within it and began there, a part where it reaches over an end."""
    records = poisson(seed, count, rate)
    summary, over = summarise(stage(records), None), window(records)
    assert over is not None
    ended = sum(over.from_ns < one.ended_ns <= over.until_ns for one in records)
    reach_over = sum(one.sent_ns < edge < one.ended_ns for one in records for edge in (over.from_ns, over.until_ns))
    output, requests = summary.value("output_tokens_per_s"), summary.value("requests_per_s")
    assert requests is not None
    assert requests * over.seconds == pytest.approx(ended, abs=reach_over + 1e-6)
    assert output == pytest.approx(11 * requests)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"health": replace(HEALTHY, lag_p99_ms=30)},
            "the client lagged: 1 % of its event loop's turns came more than 30 ms late",
        ),
        ({"health": replace(HEALTHY, cpu_share=0.97)}, "the client used 97% of its core"),
        ({"ended": "engine died: exit code 9"}, "it ended early: engine died: exit code 9"),
        ({"ended": "cancelled"}, "it ended early: cancelled"),
        ({"ended": "limit"}, ""),
        ({"health": replace(HEALTHY, lag_p99_ms=9, cpu_share=0.85)}, ""),
    ],
)
def test_what_speaks_against_a_stage(changes: dict[str, Any], reason: str) -> None:
    summary = summarise(stage(poisson(1), **changes), TARGET)
    assert summary.valid is (reason == "")
    assert [one for one in summary.reasons if reason in one] == list(summary.reasons)


def test_many_failures_invalidate() -> None:
    records = poisson(1, 100)
    assert summarise(stage(failing(records, Outcome.REFUSED, range(10))), None).valid
    (failed,) = summarise(stage(failing(records, Outcome.REFUSED, range(11))), None).reasons
    assert failed == "11 of 100 requests failed: the others had the engine for themselves"
    (all_,) = summarise(stage(failing(records, Outcome.CANCELLED, range(100))), None).reasons
    assert all_.startswith("all 100 requests were under way")
    assert summarise(stage([]), None).reasons == ("no request was measured",)


def test_a_late_client_invalidates_by_what_is_measured() -> None:
    def late(share: int, rate: float, ttft_ms: float) -> StageSummary:
        records = poisson(1, 200, rate=rate, median_ms=ttft_ms)
        return summarise(
            stage([replace(one, sent_ns=one.sent_ns + 10 * MS) if one.number % share == 0 else one for one in records]), None
        )

    (reason,) = late(10, 50, 30).reasons
    assert reason == "the client was late: 20 of 200 requests were sent more than 5 ms after they were due, one by 10 ms"
    assert late(25, 50, 30).valid
    assert late(10, 4, 30).valid  # a tenth of the mean gap is 25 ms
    assert late(10, 50, 300).valid  # a tenth of the TTFT is 30 ms


def test_a_lagging_client_invalidates_by_what_is_measured() -> None:
    lagging = replace(HEALTHY, lag_p99_ms=20)
    assert not summarise(stage(poisson(1, median_ms=100), health=lagging), None).valid
    summary = summarise(stage(poisson(1, median_ms=400), health=lagging), None)
    assert summary.valid
    (note,) = summary.notes
    assert note.startswith("1 % of all events may be stamped 20 ms late or more")


def test_an_engine_that_idles_while_requests_wait_before_it() -> None:
    """A proxy lets two at a time through: no queue in the engine, and it answers half of what is asked."""
    records = [answer(50 * i, 50 * i + 90, gap_ms=1, number=i) for i in range(100)]
    known = [sample(500 * i, requests_waiting=0, requests_running=2) for i in range(20)]
    (reason,) = summarise(stage(records, LoadPoint("constant", rate=20), samples=known), None).reasons
    assert "something before it is the limit" in reason
    queued = [sample(500 * i, requests_waiting=i, requests_running=2) for i in range(20)]
    assert summarise(stage(records, LoadPoint("constant", rate=20), samples=queued), None).valid
    busy = [sample(500 * i, requests_waiting=0, requests_running=1 + 5 * i) for i in range(20)]
    assert summarise(stage(records, LoadPoint("constant", rate=20), samples=busy), None).valid


def test_what_the_engine_says_of_itself() -> None:
    names = (
        "generated_tokens",
        "prefix_cache_queries",
        "prefix_cache_hits",
        "draft_tokens",
        "accepted_draft_tokens",
        "preemptions",
    )
    rows = ((0, 0, 0, 0, 0, 0), (500, 1_000, 100, 50, 30, 0), (2_200, 21_000, 5_100, 250, 130, 2))
    samples = [
        sample(-3_000, kv_cache_usage=0.9, **dict(zip(names, rows[0], strict=True))),
        sample(-1, kv_cache_usage=0.9, **dict(zip(names, rows[1], strict=True))),
        sample(30_000, kv_cache_usage=0.2, requests_waiting=3),
        sample(60_000, kv_cache_usage=0.4, requests_waiting=0, **dict(zip(names, rows[2], strict=True))),
    ]
    engine = summarise(stage(poisson(1), samples=samples), None).engine
    assert (engine.scrapes, engine.kv_most) == (2, 0.4)
    assert engine.kv_mean == pytest.approx(0.3)
    assert (engine.waiting_most, engine.waiting_mean, engine.running_most) == (3, 1.5, None)
    assert (engine.generated_tokens, engine.preemptions) == (1_700, 2)
    assert engine.prefix_hit_share == pytest.approx(0.25)
    assert engine.accepted_share == pytest.approx(0.5)


def test_counters_of_an_engine_that_was_started_anew_say_nothing() -> None:
    samples = [sample(0, generated_tokens=500), sample(10_000, generated_tokens=20), sample(60_000, generated_tokens=900)]
    assert summarise(stage(poisson(1), samples=samples), None).engine.generated_tokens is None


@pytest.mark.parametrize(("counted", "told"), [(2_200, False), (2_300, False), (4_400, True), (1_100, True)])
def test_the_engines_count_is_held_against_what_its_answers_told(counted: int, told: bool) -> None:
    samples = [sample(0, generated_tokens=1_000), sample(90_000, generated_tokens=1_000 + counted)]
    notes = summarise(stage(poisson(1), samples=samples), None).notes
    assert any("others use it" in note for note in notes) is told
    # Samples that don't span the stage can't be held against it.
    assert not summarise(stage(poisson(1), samples=[sample(9_000, generated_tokens=0), samples[1]]), None).notes


def test_groups_of_a_cache_experiment() -> None:
    ttft, cached = {"cold": 200, "warm": 40, "interleaved": 45, "control": 210}, {"warm": 80, "interleaved": 80}
    records = [
        answer(1_000 * i, ttft[name] + i % 7, number=i, group=name, usage=Usage(100, cached.get(name, 0), 11, None))
        for i, name in enumerate(name for _ in range(20) for name in ttft)
    ]
    summary = summarise(stage(records), None)
    shares = {group.name: group.cached_share for group in summary.groups}
    assert shares == {"cold": 0, "warm": 0.8, "interleaved": 0.8, "control": 0}
    found = {one.name: (round(one.value, -1), one.shown) for one in summary.differences}
    assert found == {"cold - control": (-10, True), "warm - cold": (-160, True), "interleaved - control": (-160, True)}


def test_what_warms_up_is_in_no_figure() -> None:
    warm = answer(0, 60_000, warmup=True, number=999)
    with_warm = summarise(stage([warm, *poisson(1)]), TARGET)
    assert replace(with_warm, warmup=0, ended_ns=0) == replace(summarise(stage(poisson(1)), TARGET), ended_ns=0)
    assert with_warm.warmup == 1


@given(
    st.lists(
        st.builds(
            answer,
            st.floats(0, 60_000),
            st.floats(1, 5_000),
            st.floats(0, 100),
            st.integers(1, 12),
            outcome=st.sampled_from(Outcome),
            usage=st.none()
            | st.builds(
                Usage, st.none() | st.integers(1, 99), st.none() | st.integers(0, 9), st.none() | st.integers(0, 99), st.none()
            ),
            group=st.sampled_from(["", "cold", "warm", "control"]),
            scheduled_ns=st.none() | st.integers(0, 60 * SECOND),
        ),
        max_size=40,
    ),
    st.sampled_from([None, TARGET]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_happened_there_is_a_summary_and_json_brings_it_back(records: list[Record], target: Target | None) -> None:
    numbered = [replace(one, number=i) for i, one in enumerate(records)]
    summary = summarise(stage(numbered, samples=[sample(0, kv_cache_usage=0.5)]), target)
    assert StageSummary.of_json(json.loads(json.dumps(summary.as_json(), allow_nan=False))) == summary
    assert summary.requests == len(records)


def test_one_request_has_a_summary() -> None:
    summary = summarise(stage([record()]), TARGET)
    assert summary.value("ttft_mean") is None
    assert summary.value("requests_per_s") == pytest.approx(1 / 0.095)
