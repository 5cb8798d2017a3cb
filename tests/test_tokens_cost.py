"""What a call would cost: as the ledger enters it, to the last decimal, and None where nothing prices it."""

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import otlp
import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server

import tallystick
from tallystick import estimating
from tallystick.attribution.prices_compile import BUCKETS
from tallystick.collectors.tokens import encoders
from tallystick.estimating import Rates, rates


@pytest.fixture(autouse=True, scope="module")
def local_encodings() -> Iterator[None]:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabularies.directory())
    encoders._loaded.clear()
    yield
    del os.environ["TIKTOKEN_CACHE_DIR"]
    encoders._loaded.clear()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of TALLYSTICK_CONFIG, read anew."""
    file = tmp_path / "tallystick.yaml"
    monkeypatch.setenv("TALLYSTICK_CONFIG", str(file))
    monkeypatch.delenv("TALLYSTICK_STRICT", raising=False)
    _forget()
    yield file
    _forget()


def _forget() -> None:
    estimating._book.cache_clear()
    estimating._rows.cache_clear()
    estimating._compiled.cache_clear()


MODELS = [
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5"),
    ("openai", "o3"),
    ("azure.ai.openai", "gpt-4o"),
    ("anthropic", "claude-sonnet-4-5"),  # dearer above 200,000 tokens
    ("anthropic", "claude-opus-4-1-20250805"),
    ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("gcp.gemini", "gemini-2.5-pro"),  # dearer above 200,000 tokens
    ("gcp.gemini", "gemini-2.5-flash"),
    ("deepseek", "deepseek-chat"),  # has been cheaper at night
    ("mistral_ai", "mistral-large-latest"),
    ("", "gpt-4.1"),
    ("acme", "never-priced"),
]
USAGES = [
    {"input_tokens": 1000, "output_tokens": 100},
    {"input_tokens": 999_983, "output_tokens": 7, "cache_read_tokens": 1},
    {"input_tokens": 17, "output_tokens": 1013, "cache_read_tokens": 150_001, "reasoning_tokens": 600},
    {"input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 200_000},
    {"input_tokens": 1, "output_tokens": 3, "cache_read_tokens": 200_000},
    {"input_tokens": 3, "output_tokens": 11, "cache_write_5m_tokens": 1_500, "cache_write_1h_tokens": 70_000},
    {"input_tokens": 0, "output_tokens": 0},
]


def test_an_estimate_for_the_true_usage_is_what_the_ledger_enters(server: Server) -> None:
    key = server.key("estimates")
    start = time.time_ns() - 60_000_000_000
    spans = [
        otlp.span(
            f"estimate {number} {usage}",
            start_ns=start,
            attributes={
                "gen_ai.provider.name": provider or None,
                "gen_ai.request.model": model,
                "gen_ai.response.model": None,
                "gen_ai.response.id": f"resp_{number}_{at}",
                "gen_ai.usage.input_tokens": sum(n for name, n in usage.items() if name not in {"output_tokens", "reasoning_tokens"}),
                "gen_ai.usage.output_tokens": usage["output_tokens"],
                "gen_ai.usage.cache_read.input_tokens": usage.get("cache_read_tokens", 0),
                "gen_ai.usage.cache_write.input_tokens": usage.get("cache_write_5m_tokens", 0) + usage.get("cache_write_1h_tokens", 0),
                "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": usage.get("cache_write_1h_tokens", 0),
                "gen_ai.usage.reasoning.output_tokens": usage.get("reasoning_tokens", 0),
            },
        )
        for number, (provider, model) in enumerate(MODELS)
        for at, usage in enumerate(USAGES)
    ]  # fmt: skip
    server.post_all([otlp.request(*spans)], key)
    entered = server.sql(
        "SELECT response_id, price_id, cost_usd, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, "
        "output_tokens, reasoning_tokens FROM charges",
        key,
    )
    assert len(entered) == len(MODELS) * len(USAGES)
    at = datetime.fromtimestamp(start / 1e9, UTC)
    tiers = set()
    for entry in entered:
        _, number, which = entry["response_id"].split("_")
        provider, model = MODELS[int(number)]
        usage: dict[str, int] = USAGES[int(which)]
        assert {name: entry[name] for name in usage} == usage, entry
        found = rates(model, provider, at)
        if model == "never-priced":
            assert (found, entry["cost_usd"]) == (None, None)
            continue
        assert found is not None, model
        whole = sum(n for name, n in usage.items() if name not in {"output_tokens", "reasoning_tokens"})
        assert found.of_size(whole).price_id == entry["price_id"]
        assert found.cost(**usage) == entry["cost_usd"], entry
        tiers.add(entry["price_id"])
    assert len([one for one in tiers if "above=" in one]) >= 2


def test_an_estimate() -> None:
    found = tallystick.estimate_cost("gpt-4o", [{"role": "user", "content": "How deep is the sea?"}], max_output_tokens=1000)
    assert (found.input_tokens, found.max_output_tokens, found.counted.source) == (13, 1000, "tokenizer")
    assert found.price is not None
    assert found.low_usd == 13 * found.price.input
    assert found.high_usd == 13 * found.price.input + 1000 * found.price.output
    assert found.unpriced_reason == ""
    cached = tallystick.estimate_cost("gpt-4o", [{"role": "user", "content": "How deep is the sea?"}], cached_tokens=10)
    assert cached.low_usd == 3 * found.price.input + 10 * found.price.cache_read
    assert cached.high_usd is None, "how long the answer may be isn't known"
    everything = tallystick.estimate_cost("gpt-4o", "How deep is the sea?", cached_tokens=10**9)
    assert everything.low_usd == 13 * found.price.cache_read
    assert tallystick.count_tokens("gpt-4o", "How deep is the sea?") == found.counted


def test_a_model_without_a_price_has_no_cost() -> None:
    found = tallystick.estimate_cost("acme-private-7b", "hello", max_output_tokens=10, provider="acme")
    assert (found.low_usd, found.high_usd, found.price) == (None, None, None)
    assert "acme-private-7b" in found.unpriced_reason
    assert "TALLYSTICK_CONFIG" in found.unpriced_reason
    assert found.input_tokens > 0


@pytest.mark.parametrize("wrong", [{"max_output_tokens": -1}, {"cached_tokens": -1}])
def test_negative_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is negative: -1"):
        tallystick.estimate_cost("gpt-4o", "hello", **wrong)


def test_a_time_without_a_zone_is_utc() -> None:
    assert rates("deepseek-chat", "deepseek", datetime(2025, 6, 1, 17)) == rates(  # noqa: DTZ001 - what is tested
        "deepseek-chat", "deepseek", datetime(2025, 6, 1, 17, tzinfo=UTC)
    )


OWN = """
prices:
  models:
    - model: acme-*
      per_million_tokens: {input: 2, cache_read: 0.5, output: 10}
      above: [{input_tokens: 100, per_million_tokens: {input: 4}}]
      per_request: 0.25
      until: 2026-01-01
    - model: acme-*
      per_million_tokens: {input: 3}
      from: 2026-01-01
  discounts: [{provider: openai, percent: 10, source: contract}]
"""


def test_the_users_prices_come_first_and_are_dated(config: Path) -> None:
    config.write_text(OWN)
    old, new = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    before = rates("acme-large", "acme", old)
    assert before is not None
    assert before.cost(input_tokens=90, cache_read_tokens=10, output_tokens=1) == Decimal("0.250195")
    assert before.cost(input_tokens=91, cache_read_tokens=10, output_tokens=1) == Decimal("0.250379")
    after = rates("acme-large", "acme", new)
    assert after is not None
    assert after.cost(input_tokens=1_000_000) == 3
    own, listed = rates("gpt-4o", "openai", new), Decimal("2.5e-6")
    assert own is not None
    assert own.input == listed * Decimal("0.9")
    assert "file@" in own.price_id


@pytest.mark.parametrize("text", ["prices: {models: [{model: x, per_million_tokens: {inptu: 1}}]}", "]:", None])
def test_prices_that_cannot_be_read_leave_the_public_list(
    config: Path, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        config.write_text(text)
    told: list[str] = []
    monkeypatch.setattr(estimating, "warn_once", lambda _, message: told.append(message))
    assert rates("gpt-4o", "openai") is not None
    assert len(told) == 1
    assert "TALLYSTICK_CONFIG" in told[0]
    assert config.name in told[0]


LIGHT = """
import sys
for name in ("yaml", "chdb", "clickhouse_connect", "fastapi", "httpx", "jinja2", "sqlalchemy", {more}):
    sys.modules[name] = None
import tallystick
print(tallystick.estimate_cost("gpt-4o", "hello", max_output_tokens=10))
"""


def light(more: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    script = LIGHT.replace("{more}", more)
    return subprocess.run(
        [sys.executable, "-c", script], env=clean | env, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_service_without_the_server_can_estimate(tmp_path: Path) -> None:
    done = light(TALLYSTICK_STRICT="1")
    assert "low_usd=Decimal('0.0000200" in done.stdout, done.stderr
    (tmp_path / "own.yaml").write_text(OWN)
    done = light(TALLYSTICK_CONFIG=str(tmp_path / "own.yaml"))
    assert "low_usd=Decimal('0.0000200" in done.stdout, done.stderr
    assert "pip install pyyaml" in done.stderr


def test_without_a_price_list_there_is_no_cost() -> None:
    done = light('"genai_prices"')
    assert "low_usd=None" in done.stdout, done.stderr
    assert "pip install 'tallystick[tokens]'" in done.stdout


RATE = st.decimals(0, 100, places=20, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(RATE, min_size=10, max_size=10), st.lists(st.integers(0, 10**9), min_size=9, max_size=9))
def test_cost_is_exact_and_never_negative(values: list[Decimal], counts: list[int]) -> None:
    made = Rates("x", larger=(), **dict(zip(BUCKETS, values, strict=True)))
    usage = {f"{name}_tokens": count for name, count in zip(BUCKETS, counts, strict=False)}
    total = made.cost(**usage)
    assert total >= 0
    # Each token is paid for once, at one of the rates.
    tokens = sum(counts[:5])
    assert total <= tokens * max(values) + values[9] + 1
    assert total == total.quantize(Decimal("1e-12"))


def test_the_documentation_is_as_it_is_told() -> None:
    page = (Path(__file__).parent.parent / "docs" / "tokens.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/tokens.md", "exec"), scope)
    assert repr(tallystick.count_tokens("gpt-4o", scope["messages"])) in code
    assert repr((scope["found"].low_usd, scope["found"].high_usd)) in code
    # Each factor of the table of families stands in the page's.
    told = {float(factor) for factor in re.findall(r"^\|[^|]+\| \w+_base \| ([\d.]+) \|", page, re.MULTILINE)}
    text = files("tallystick.collectors.tokens").joinpath("encodings.csv").read_text(encoding="utf-8")
    assert told == {float(row["factor"]) for row in csv.DictReader(text.splitlines()) if row["factor"]} | {1.1}
