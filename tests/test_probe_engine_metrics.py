"""Metrics of engines: as those write them, and as Prometheus' own library reads them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tallystick.probes.engines.metrics import read_labels, read_metrics

GOLDEN = Path(__file__).parent / "probe_metrics"

EXPECTED: dict[str, Mapping[str, float]] = {
    "vllm": {
        "kv_cache_usage": 0.3, "requests_running": 6, "requests_waiting": 2, "prefix_cache_queries": 59_150_800, "prefix_cache_hits": 34_176_600,
        "prompt_tokens": 59_150_800, "cached_prompt_tokens": 34_176_600, "generated_tokens": 3_400, "preemptions": 4, "draft_tokens": 300,
        "accepted_draft_tokens": 120, "requests_ended": 13, "ttft_s_sum": 2.4, "ttft_s_count": 4, "itl_s_sum": 1.2, "itl_s_count": 96,
        "e2e_s_sum": 9.5, "e2e_s_count": 4, "queue_s_sum": 0.25, "queue_s_count": 4, "prefill_s_sum": 0.5, "prefill_s_count": 4,
        "decode_s_sum": 8.75, "decode_s_count": 4,
    },
    "sglang": {
        "kv_cache_usage": 0.28, "requests_running": 8, "requests_waiting": 3, "prompt_tokens": 8_128_902, "cached_prompt_tokens": 61_000,
        "prefix_cache_queries": 8_128_902, "prefix_cache_hits": 61_000, "generated_tokens": 7_557_572, "preemptions": 2, "requests_ended": 11_008,
        "draft_acceptance": 0.6, "ttft_s_sum": 2.3518979474117756e06, "ttft_s_count": 11_008, "itl_s_sum": 1e5, "itl_s_count": 7_400_000,
        "e2e_s_sum": 3.1e6, "e2e_s_count": 11_007, "queue_s_sum": 12.5, "queue_s_count": 11_008,
    },
    "tgi": {
        "requests_running": 3, "requests_waiting": 1, "prompt_tokens": 4_096, "generated_tokens": 2_048, "requests_ended": 40,
        "itl_s_sum": 0.8, "itl_s_count": 40, "e2e_s_sum": 44.5, "e2e_s_count": 40, "queue_s_sum": 0.04, "queue_s_count": 40,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_metrics_as_engines_write_them(kind: str) -> None:
    assert read_metrics(kind, (GOLDEN / f"{kind}.txt").read_text(encoding="utf-8")) == pytest.approx(EXPECTED[kind])


def test_metrics_of_others_are_none() -> None:
    text = (GOLDEN / "vllm.txt").read_text(encoding="utf-8")
    assert read_metrics("llamacpp", text) == read_metrics("openai", text) == read_metrics("ollama", text) == {}
    assert read_metrics("llamacpp", "llamacpp:requests_processing\nllamacpp:requests_deferred 4 1763500000\n") == {
        "requests_waiting": 4
    }
    assert read_metrics("llamacpp", "llamacpp:requests_processing NaN\nllamacpp:requests_deferred much\n") == {}
    # A sum whose one part is missing is unknown.
    assert read_metrics("llamacpp", "llamacpp:prompt_tokens_total 5\n") == {}


LABEL_VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
SERIES = st.lists(
    st.tuples(
        st.sampled_from(["vllm:num_requests_running", "vllm:num_requests_running_by_x", "other", "vllm:kv_cache_usage_perc"]),
        st.dictionaries(st.sampled_from(["model_name", "engine", "le"]), LABEL_VALUES, max_size=3),
        st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(0, 10**9),
    ),
    max_size=8,
)


@given(SERIES)
def test_metrics_are_read_as_the_library_reads_them(series: list[tuple[str, dict[str, str], float]]) -> None:
    lines = []
    for name, labels, value in series:
        written = ",".join(
            '{}="{}"'.format(label, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
            for label, text in labels.items()
        )
        lines.append(f"{name}{{{written}}} {value!r}" if written else f"{name} {value!r}")
    text = "\n".join([*lines, ""])
    theirs: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            theirs.setdefault(sample.name, []).append(sample.value)
    ours = read_metrics("vllm", text)
    assert ours.keys() <= {"requests_running", "kv_cache_usage"}
    running, usage = theirs.get("vllm:num_requests_running"), theirs.get("vllm:kv_cache_usage_perc")
    assert ours.get("requests_running") == (pytest.approx(sum(running)) if running else None)
    assert ours.get("kv_cache_usage") == (pytest.approx(sum(usage) / len(usage)) if usage else None)


def test_labels_are_settings() -> None:
    text = 'x 1\nvllm:cache_config_info{a="1",b="a \\"quoted\\" } one",none="None",empty=""} 1.0\n'
    assert read_labels(text, ["vllm:cache_config_info", "x"]) == {"a": "1", "b": 'a \\"quoted\\" } one'}
