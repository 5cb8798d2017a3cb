"""The cases of test_calls, and a refused one, through the real server: what the ledger enters."""

from typing import Any

import pytest
from server import Server
from test_calls import ASKED, CASES, SO_FAR
from test_collector import service

from tallystick.testing import ProviderServer

REFUSED = """
from tallystick.collectors.calls.request import Refusal, gates

class Closed:
    def admit(self, request):
        raise Refusal("enough")

gates.append(Closed())
for name, call in {
    "refused": lambda: chat.create(**words),
    "refused stream": lambda: chat.create(**words, stream=True),
    "refused messages": lambda: messages.create(**said),
}.items():
    with case(name):
        try:
            call()
        except Refusal:
            continue
        raise AssertionError(name)
"""


@pytest.fixture(scope="module")
def rows(server: Server) -> dict[str, dict[str, Any]]:
    """By case."""
    key = server.key("calls")
    with ProviderServer() as provider:
        service((CASES, REFUSED), provider, server.url, TALLYSTICK_KEY=key, TALLYSTICK_STRICT="1")
    found = server.sql("SELECT * FROM charges", key)
    by_case = {row["feature"]: row for row in found}
    assert len(by_case) == len(found), "one entry of each call"
    assert len(found) == CASES.count("case(") - 1 + 3
    return by_case


def test_a_counted_stream_is_entered_as_estimated(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["counted"]
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("estimated", ASKED, SO_FAR[-1])
    assert (row["status"], row["streamed"], row["ttft_kind"]) == ("ok", 1, "content")
    assert row["ttft_ms"] > 0
    assert row["cost_usd"] > 0


@pytest.mark.parametrize("case", ["closed", "dropped", "async closed", "broken", "error event", "short"])
def test_a_stream_cut_short_is_entered_with_what_was_generated(rows: dict[str, dict[str, Any]], case: str) -> None:
    row = rows[case]
    assert (row["usage_source"], row["input_tokens"]) == ("partial", ASKED)
    assert row["output_tokens"] in SO_FAR
    assert row["status"] != "ok"
    assert row["cost_usd"] is None if "gpt-4o-" in row["request_model"] else row["cost_usd"] > 0


@pytest.mark.parametrize("case", ["messages closed", "messages dropped", "async messages helper left by with"])
def test_its_cache_is_what_the_provider_told(rows: dict[str, dict[str, Any]], case: str) -> None:
    row = rows[case]
    buckets = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "usage_source")
    assert [row[name] for name in buckets] == [100, 1500, 500, 200, "partial"]
    assert row["output_tokens"] > 1


def test_a_stream_that_nobody_read_has_no_output_that_is_known(rows: dict[str, dict[str, Any]]) -> None:
    for case in ("unread", "messages unread"):
        assert (rows[case]["output_tokens"], rows[case]["usage_source"]) == (None, "partial")


@pytest.mark.parametrize(
    ("case", "kind"),
    [("messages thinking streamed", "reasoning"), ("tools streamed", "tool_call"), ("asked", "content"), ("lines", "content")],
)
def test_the_first_token_has_its_kind(rows: dict[str, dict[str, Any]], case: str, kind: str) -> None:
    assert (rows[case]["ttft_kind"], rows[case]["status"]) == (kind, "ok")


def test_what_the_provider_told_is_entered_as_such(rows: dict[str, dict[str, Any]]) -> None:
    for case in ("chat", "asked", "raw", "body", "messages lines", "retried", "embeddings", "tools", "responses tools streamed"):
        assert (rows[case]["usage_source"], rows[case]["status"]) == ("provider", "ok"), case
    assert (rows["asked"]["input_tokens"], rows["asked"]["output_tokens"]) == (1200, 50)


@pytest.mark.parametrize("case", ["refused", "refused stream", "refused messages"])
def test_a_call_that_a_gate_stopped_is_seen_and_costs_nothing(rows: dict[str, dict[str, Any]], case: str) -> None:
    row = rows[case]
    assert (row["usage_source"], row["status"], row["error_type"].rpartition(".")[2]) == ("none", "error", "Refusal")
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (0, 0, 0)
