"""A service with one import, real clients, the provider's protocol, the real server: what does SQL say a moment later?"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from server import CLEAN, Server

from tallystick.testing import ProviderServer

SERVICE = """
import json, os, sys, time
import tallystick, tallystick.auto
import anthropic, openai

base = os.environ["PROVIDER"]
gpt = openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
claude = anthropic.Anthropic(base_url=base, api_key="k", max_retries=0)
ask = [{"role": "user", "content": "a secret question"}]

def cached(**usage):
    return {"x-tallystick-usage": json.dumps(usage)}

def ended(name):
    print(json.dumps({"name": name, "ended_ns": time.time_ns()}), flush=True)

with tallystick.scope(customer="acme", feature="chat", agent="planner", team="search", user="u-1", session="s-1", release="v7"):
    gpt.chat.completions.create(model="gpt-4o-mini", messages=ask, user="chat")
    ended("chat")
    usage = cached(input=176, output=450, cache_read=1024, reasoning=400)
    stream = gpt.chat.completions.create(
        model="gpt-4o-mini", messages=ask, stream=True, stream_options={"include_usage": True}, extra_headers=usage
    )
    for _ in stream:
        pass
    ended("stream")
    with tallystick.scope(feature="summary"):
        usage = cached(input=100, output=42, cache_read=1500, cache_write_5m=500, cache_write_1h=200)
        claude.messages.create(model="claude-sonnet-4-5", max_tokens=99, messages=ask, extra_headers=usage)
        ended("claude")
        gpt.embeddings.create(model="text-embedding-3-small", input="hello")
        ended("embedding")

with tallystick.scope(customer="globex"):
    try:
        gpt.chat.completions.create(model="gpt-4o-mini-429", messages=ask)
    except openai.RateLimitError:
        ended("refused")
    gpt.chat.completions.create(model="a-model-of-our-own", messages=ask)
    ended("own")

sys.stdin.read()
"""

M = Decimal(1_000_000)
EXPECTED: dict[str, dict[str, Any]] = {
    "chat": {
        "customer": "acme", "feature": "chat", "agent": "planner", "team": "search", "user": "u-1", "session": "s-1",
        "tags": {"release": "v7"}, "provider": "openai", "request_model": "gpt-4o-mini", "operation": "chat", "status": "ok",
        "input_tokens": 1200, "cache_read_tokens": 0, "output_tokens": 50, "reasoning_tokens": 0, "usage_source": "provider",
        "cost_usd": (1200 * Decimal("0.15") + 50 * Decimal("0.60")) / M,
    },
    "stream": {
        "customer": "acme", "feature": "chat", "streamed": 1, "input_tokens": 176, "cache_read_tokens": 1024, "output_tokens": 450,
        "reasoning_tokens": 400, "cost_usd": (176 * Decimal("0.15") + 1024 * Decimal("0.075") + 450 * Decimal("0.60")) / M,
    },
    "claude": {
        "customer": "acme", "feature": "summary", "agent": "planner", "provider": "anthropic", "input_tokens": 100,
        "cache_read_tokens": 1500, "cache_write_5m_tokens": 500, "cache_write_1h_tokens": 200, "output_tokens": 42,
        "cost_usd": (100 * 3 + 1500 * Decimal("0.3") + 500 * Decimal("3.75") + 200 * 6 + 42 * 15) / M,
    },
    "embedding": {
        "customer": "acme", "feature": "summary", "operation": "embeddings", "input_tokens": 8, "cost_usd": 8 * Decimal("0.02") / M,
    },
    "refused": {
        "customer": "globex", "status": "error", "usage_source": "none", "cost_usd": 0, "error_type": "openai.RateLimitError", "tags": {},
    },
    "own": {"customer": "globex", "feature": "", "request_model": "a-model-of-our-own", "input_tokens": 1200, "cost_usd": None},
}  # fmt: skip
"""Rates are those of the providers' price lists, in USD a million tokens."""


@pytest.fixture(scope="module")
def rows(server: Server) -> Iterator[dict[str, dict[str, Any]]]:
    """The calls in the order in which they were made, each as soon as SQL has it, while the service still runs."""
    key = server.key("end-to-end")
    with ProviderServer() as provider:
        environ = CLEAN | {
            "TALLYSTICK_URL": server.url,
            "TALLYSTICK_KEY": key,
            "PROVIDER": provider.url,
            "OTEL_SERVICE_NAME": "shop",
        }
        service = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SERVICE],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert service.stdout is not None
        try:
            ended = [json.loads(service.stdout.readline() or "{}") for _ in EXPECTED]
            assert [one.get("name") for one in ended] == list(EXPECTED)
            found: list[dict[str, Any]] = []
            deadline = time.monotonic() + 30
            while len(found) < len(EXPECTED) and time.monotonic() < deadline:
                found = server.sql("SELECT * FROM charges ORDER BY ended_at", key)
            visible_s = time.time() - ended[-1]["ended_ns"] / 1e9
            _, errors = service.communicate("", timeout=30)
        finally:
            service.kill()
    print(f"\nlast call in SQL {visible_s:.2f} s after it ended")
    assert errors == ""
    assert service.returncode == 0
    assert len(found) == len(EXPECTED)
    yield dict(zip(EXPECTED, found, strict=True))
    again = server.sql("SELECT count() AS entries, sum(calls) AS calls FROM charges", key)
    assert again == [{"entries": len(EXPECTED), "calls": len(EXPECTED)}], "a call was told of again when the service ended"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_call(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[name]
    assert {column: row[column] for column in EXPECTED[name]} == EXPECTED[name]
    assert row["service"] == "shop"
    assert row["entry"] == "call"
    assert (row["price_id"] == "") is (name in ("own",)) or name == "refused"


def test_spend_adds_up(rows: dict[str, dict[str, Any]], server: Server) -> None:
    key = server.key("end-to-end")
    query = "SELECT customer, sum(cost_usd) AS cost, sum(calls) AS calls FROM charges GROUP BY customer ORDER BY customer"
    costs: dict[str, Decimal] = {}
    for row in rows.values():
        costs[row["customer"]] = costs.get(row["customer"], Decimal(0)) + (row["cost_usd"] or 0)
    assert server.sql(query, key) == [
        {"customer": "acme", "cost": costs["acme"], "calls": 4},
        {"customer": "globex", "cost": costs["globex"], "calls": 2},
    ]


def test_nothing_of_the_prompt_is_kept(rows: dict[str, dict[str, Any]]) -> None:
    assert "secret" not in str(rows)
