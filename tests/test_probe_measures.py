"""What a request took, by definitions that other tools take otherwise."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_stages import MS, answer, record

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import (
    Judged,
    cached_tokens,
    chunk_gaps_ns,
    e2e_ns,
    first_kind,
    input_tokens,
    judge,
    measured,
    miscounted,
    normalised_ns,
    output_tokens,
    tpot_ns,
    ttfc_ns,
    ttft_ns,
)
from tallystick.probes.records import Event, Kind, Outcome, Record, Usage


def test_a_role_is_no_token() -> None:
    one = record()
    assert ttft_ns(one) == 48 * MS
    assert ttft_ns(one, "scheduled") == 50 * MS
    assert first_kind(one) is Kind.CONTENT
    assert chunk_gaps_ns(one) == (10 * MS,) * 4


def test_reasoning_is_generated_and_content_comes_after_it() -> None:
    one = record()
    events = tuple(
        replace_kind(event, Kind.REASONING) if 1_040 * MS < event.at_ns < 1_065 * MS else event for event in one.events
    )
    one = replace(one, events=events)
    assert (ttft_ns(one), first_kind(one)) == (48 * MS, Kind.REASONING)
    assert ttfc_ns(one) == 68 * MS
    assert tpot_ns(one) == tpot_ns(record())


def test_a_tool_call_is_generated_and_no_content() -> None:
    one = replace(
        record(), events=tuple(replace_kind(event, Kind.TOOL) for event in record().events if event.kind is Kind.CONTENT)
    )
    assert ttft_ns(one) == 48 * MS
    assert ttfc_ns(one) is None


def test_time_per_token_is_by_tokens_not_by_chunks() -> None:
    assert tpot_ns(record()) == pytest.approx(40 * MS / 9)
    assert tpot_ns(record(usage=Usage(100, 0, 5, None))) == 10 * MS


def test_end_to_end_is_to_the_end_of_the_answer() -> None:
    assert e2e_ns(record()) == 93 * MS
    assert e2e_ns(record(), "scheduled") == 95 * MS
    assert e2e_ns(record(scheduled_ns=None), "scheduled") is None
    assert normalised_ns(record()) == 9.3 * MS


NONE = Usage(None, None, None, None)


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, (10, "usage")),
        ({"counted_output": 11}, (10, "usage")),
        ({"usage": None, "counted_output": 11}, (11, "counted")),
        ({"usage": NONE, "counted_output": 11}, (11, "counted")),
        ({"usage": None}, None),
        ({"usage": Usage(100, None, 0, None)}, None),
        ({"usage": Usage(100, None, 0, None), "counted_output": 9}, (9, "counted")),
        ({"usage": Usage(100, None, 0, None), "events": ()}, (0, "usage")),
        ({"usage": Usage(100, None, -1, None)}, None),
    ],
)
def test_output_tokens_come_from_usage_or_tokeniser_and_never_from_chunks(changes: dict[str, Any], tokens: object) -> None:
    assert output_tokens(record(**changes)) == tokens


def test_no_time_per_token_without_two_tokens_two_chunks_and_a_count() -> None:
    assert tpot_ns(record(usage=None)) is None
    assert tpot_ns(record(usage=Usage(100, 0, 1, None))) is None
    assert tpot_ns(record(events=record().events[:2])) is None
    assert normalised_ns(record(usage=None)) is None


def test_nothing_generated_is_no_time() -> None:
    one = record(events=(Event(1_005 * MS, Kind.ROLE, 0), Event(1_091 * MS, Kind.USAGE, 0)), outcome=Outcome.EMPTY)
    assert (ttft_ns(one), ttfc_ns(one), first_kind(one), chunk_gaps_ns(one)) == (None, None, None, ())


def test_input_tokens_are_the_engines_where_it_tells() -> None:
    assert (input_tokens(record(input_tokens=90)), cached_tokens(record())) == (100, 20)
    assert (input_tokens(record(usage=None)), cached_tokens(record(usage=None))) == (100, None)
    assert input_tokens(record(usage=NONE, input_tokens=None)) is None


@pytest.mark.parametrize(
    ("told", "counted", "wrong"), [(10, 10, False), (10, 8, False), (100, 91, False), (100, 80, True), (10, 5, True)]
)
def test_a_usage_that_counts_wrongly_is_seen(told: int, counted: int, wrong: bool) -> None:
    assert miscounted(record(usage=Usage(100, 0, told, None), counted_output=counted)) is wrong
    assert miscounted(record(usage=None, counted_output=counted)) is False


@pytest.mark.parametrize(
    ("changes", "target", "judged"),
    [
        ({}, {"ttft_ms": 50}, (True, ())),
        ({}, {"ttft_ms": 49}, (False, ("ttft",))),
        ({"scheduled_ns": None}, {"ttft_ms": 49}, (True, ())),
        ({"scheduled_ns": 0}, {"ttft_ms": 500}, (False, ("ttft",))),
        ({}, {"tpot_ms": 4}, (False, ("tpot",))),
        ({}, {"tpot_ms": 5, "e2e_ms": 90}, (False, ("e2e",))),
        ({"usage": None}, {"tpot_ms": 4}, (None, ())),
        ({"usage": None}, {"tpot_ms": 4, "ttft_ms": 1}, (False, ("ttft",))),
        ({"usage": Usage(100, 0, 1, None)}, {"tpot_ms": 1}, (True, ())),
        ({"outcome": Outcome.TIMED_OUT}, {"ttft_ms": 1_000}, (False, ("failed",))),
        ({"outcome": Outcome.REFUSED}, {"ttft_ms": 1_000}, (False, ("failed",))),
        ({"outcome": Outcome.CANCELLED}, {"ttft_ms": 1_000}, None),
        ({"outcome": Outcome.CANCELLED}, {"ttft_ms": 49}, (False, ("ttft",))),
        ({"outcome": Outcome.CANCELLED, "events": ()}, {"ttft_ms": 94}, (False, ("ttft",))),
        ({"outcome": Outcome.CANCELLED, "events": ()}, {"ttft_ms": 95}, None),
        ({"outcome": Outcome.CANCELLED}, {"ttft_ms": 51, "e2e_ms": 90}, (False, ("e2e",))),
    ],
)
def test_goodput_judges_each_request(
    changes: dict[str, Any], target: dict[str, float], judged: tuple[object, ...] | None
) -> None:
    found = judge(record(**changes), Target.model_validate(target))
    assert found == judged
    assert found is None or isinstance(found, Judged)


@given(st.floats(0, 5_000), st.floats(1, 5_000), st.floats(0.5, 200), st.integers(2, 60))
@settings(max_examples=100, deadline=None)
def test_the_parts_make_the_whole(at: float, ttft: float, gap: float, tokens: int) -> None:
    one = answer(at, ttft, gap, tokens)
    first, each, whole = ttft_ns(one), tpot_ns(one), e2e_ns(one)
    assert first is not None
    assert each is not None
    assert whole == pytest.approx(first + each * (tokens - 1), abs=1)
    assert sum(chunk_gaps_ns(one)) == pytest.approx(each * (tokens - 1), abs=1)


def test_what_warms_up_is_not_measured() -> None:
    warm: Record = record(warmup=True)
    assert measured((warm, record(number=1))) == (record(number=1),)


def replace_kind(event: Event, kind: Kind) -> Event:
    return event._replace(kind=kind)
