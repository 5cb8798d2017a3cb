"""Other tools' figures, worked out by hand from their sources: one stream in which each definition gives another number."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_stages import MS, answer, poisson, record

from tallystick.probes.config import Target
from tallystick.probes.figures.measures import tpot_ns, ttft_ns
from tallystick.probes.records import Event, Kind, Outcome, Usage
from tallystick.probes.views import VIEWS, view

STREAM = replace(
    record(),
    scheduled_ns=990 * MS,
    events=(
        Event(1_005 * MS, Kind.ROLE, 0),
        Event(1_050 * MS, Kind.REASONING, 8),
        Event(1_062 * MS, Kind.CONTENT, 8),
        Event(1_090 * MS, Kind.CONTENT, 8),
        Event(1_092 * MS, Kind.OTHER, 0),
        Event(1_094 * MS, Kind.USAGE, 0),
        Event(1_095 * MS, Kind.DONE, 0),
    ),
)
"""Sent at 1,002 ms; ten tokens in three chunks of text; the finish chunk, which is empty, at 1,092."""


def test_vllm_counts_the_role_as_a_token_and_ends_with_the_last_choice() -> None:
    found = view("vllm", [STREAM])
    assert found["median_ttft_ms"] == 3
    assert found["median_e2el_ms"] == 90
    assert found["mean_tpot_ms"] == pytest.approx(87 / 9)
    assert found["mean_itl_ms"] == pytest.approx((45 + 12 + 28 + 2) / 4)
    assert found["duration"] == pytest.approx(0.105)
    assert found["output_throughput"] == pytest.approx(10 / 0.105)
    assert found["total_token_throughput"] == pytest.approx(110 / 0.105)


def test_guidellms_time_per_token_holds_the_first_one() -> None:
    found = view("guidellm", [STREAM])
    assert found["time_to_first_token_ms.median"] == 48
    assert found["time_to_first_output_token_ms.median"] == 60
    assert found["time_per_output_token_ms.mean"] == pytest.approx(88 / 10)
    assert found["inter_token_latency_ms.mean"] == pytest.approx(40 / 9)
    assert found["request_latency.median"] == pytest.approx(0.093)
    assert found["output_tokens_per_second.mean"] == pytest.approx(10 / 0.093)


def test_aiperf_ends_with_the_last_text() -> None:
    found = view("aiperf", [STREAM])
    assert found["time_to_first_token.p50"] == 48
    assert found["time_to_first_output_token.p50"] == 60
    assert found["time_to_second_token.p50"] == 12
    assert found["request_latency.p50"] == 88
    assert found["inter_token_latency.avg"] == pytest.approx(40 / 9)
    assert found["inter_chunk_latency.avg"] == 20
    assert found["output_token_throughput.avg"] == pytest.approx(10 / 0.088)


def test_ours_is_neither() -> None:
    assert ttft_ns(STREAM) == 48 * MS
    assert ttft_ns(STREAM, "scheduled") == 60 * MS
    assert tpot_ns(STREAM) == pytest.approx(40 * MS / 9)


def test_guidellm_weights_by_tokens_and_shows_values_that_occur() -> None:
    slow, fast = answer(0, 100, gap_ms=30, tokens=2), answer(1_000, 100, gap_ms=10, tokens=102, number=1)
    found = view("guidellm", [slow, fast])
    assert found["inter_token_latency_ms.mean"] == pytest.approx((30 * 1 + 10 * 101) / 102)
    assert found["inter_token_latency_ms.median"] == pytest.approx(10)
    assert found["time_to_first_token_ms.median"] == 100
    four = [answer(1_000 * i, ttft, number=i) for i, ttft in enumerate((10, 20, 30, 40))]
    assert view("guidellm", four)["time_to_first_token_ms.median"] == 20
    assert view("vllm", four)["median_ttft_ms"] == view("aiperf", four)["time_to_first_token.p50"] == 25


def test_what_tokens_are_counted_by() -> None:
    untold = replace(STREAM, usage=None)
    assert view("guidellm", [untold])["output_tokens_per_second.mean"] == pytest.approx(3 / 0.093)
    assert view("vllm", [untold])["total_output_tokens"] == 1
    assert "inter_token_latency.avg" not in view("aiperf", [untold])
    counted = replace(STREAM, counted_output=8)
    assert view("aiperf", [counted])["inter_token_latency.avg"] == pytest.approx(40 / 7)
    assert view("vllm", [counted])["total_output_tokens"] == 10


def test_failures_are_in_no_time_and_warming_up_in_no_figure() -> None:
    refused = replace(STREAM, number=1, outcome=Outcome.REFUSED, events=(), usage=None, ended_ns=5_000 * MS)
    warm = replace(STREAM, number=2, warmup=True, sent_ns=0)
    for name in VIEWS:
        assert view(name, [refused, warm]) == {}
    found = view("vllm", [STREAM, refused, warm])
    assert (found["completed"], found["failed"], found["median_ttft_ms"]) == (1, 1, 3)
    assert found["duration"] == pytest.approx(4.01)
    empty = replace(STREAM, outcome=Outcome.EMPTY, events=STREAM.events[:1], usage=Usage(100, 0, 0, None))
    assert view("vllm", [empty])["completed"] == 1
    assert view("guidellm", [empty]) == {}


@pytest.mark.parametrize(
    ("limits", "vllm", "guidellm", "aiperf"),
    [
        ({"ttft_ms": 10}, True, False, False),
        ({"tpot_ms": 5}, False, True, True),
        ({"e2e_ms": 89}, False, False, True),
        ({"e2e_ms": 91, "ttft_ms": 50}, True, False, True),
    ],
)
def test_goodput_is_by_their_own_times(limits: dict[str, float], vllm: bool, guidellm: bool, aiperf: bool) -> None:
    target = Target.model_validate(limits)
    assert (view("vllm", [STREAM], target)["request_goodput"] > 0) is vllm
    assert (view("guidellm", [STREAM], target)["goodput_requests_per_second.mean"] > 0) is guidellm
    assert (view("aiperf", [STREAM], target)["goodput.avg"] > 0) is aiperf


@given(st.integers(0, 1_000))
@settings(max_examples=30, deadline=None)
def test_where_definitions_agree_so_do_figures(seed: int) -> None:
    """A stream of one token a chunk, no role, nothing after the last: all tools and we mean the same."""
    records = poisson(seed, 25)
    vllm, guidellm, aiperf = (view(name, records) for name in ("vllm", "guidellm", "aiperf"))
    ours = float(np.median([ttft_ns(one) or 0 for one in records])) / MS
    assert vllm["median_ttft_ms"] == pytest.approx(ours)
    assert aiperf["time_to_first_token.p50"] == pytest.approx(ours)
    assert guidellm["time_to_first_token_ms.median"] == pytest.approx(ours)
    assert vllm["mean_tpot_ms"] == pytest.approx(aiperf["inter_token_latency.avg"]) == pytest.approx(10)
    assert guidellm["inter_token_latency_ms.mean"] == pytest.approx(10)
