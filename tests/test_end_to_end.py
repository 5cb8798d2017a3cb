"""One import in a service, and a moment later SQL says what its calls cost and whom they were for."""

import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from server import CLEAN, Server

from tallystick.testing import ProviderServer

SERVICE = """
import sys, time
import tallystick.auto
import tallystick
import anthropic, openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none")
claude = anthropic.Anthropic(base_url=sys.argv[1], api_key="none")
hello = [{"role": "user", "content": "hello"}]

@tallystick.scope(customer="acme", feature="search", agent="planner", plan="gold")
def search():
    client.chat.completions.create(model="gpt-4o-mini", messages=hello)
    for _ in client.chat.completions.create(model="gpt-4o-mini-cached", messages=hello, stream=True, stream_options={"include_usage": True}):
        pass
    claude.messages.create(model="claude-sonnet-4-5-cw", max_tokens=100, messages=hello)

search()
print("ended", time.time_ns(), flush=True)
time.sleep(30)
"""


def test_a_call_is_in_the_ledger_a_moment_after_it_ended(tmp_path: Path) -> None:
    with ProviderServer() as provider, Server(tmp_path / "data") as server:
        environ = {**CLEAN, "TALLYSTICK_URL": server.url, "OTEL_SERVICE_NAME": "shop"}
        service = subprocess.Popen([sys.executable, "-c", SERVICE, provider.url], env=environ, stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        ended_ns = int(service.stdout.readline().split()[1])
        query = "SELECT * FROM charges ORDER BY started_at"
        while len(rows := server.sql(query)) < 3 and time.time_ns() - ended_ns < 20_000_000_000:
            time.sleep(0.05)
        print(f"visible {(time.time_ns() - ended_ns) / 1e9:.2f} s after the last call ended")
        service.kill()
        service.communicate()
        truths = list(provider.calls)
    assert len(rows) == len(truths) == 3
    for row, truth in zip(rows, truths, strict=True):
        assert truth.usage is not None
        assert row["calls"] == 1
        assert (row["customer"], row["feature"], row["agent"], row["tags"], row["service"]) == (
            "acme",
            "search",
            "planner",
            {"plan": "gold"},
            "shop",
        )
        assert (row["status"], row["usage_source"]) == ("ok", "provider")
        write = row["cache_write_5m_tokens"] + row["cache_write_1h_tokens"]
        assert row["input_tokens"] + row["cache_read_tokens"] + write == truth.usage.input_total
        assert row["cache_read_tokens"] == truth.usage.cache_read
        assert row["output_tokens"] == truth.usage.output
    plain, streamed, claude = rows
    assert plain["cost_usd"] == plain["input_tokens"] * Decimal("0.00000015") + plain["output_tokens"] * Decimal("0.0000006")
    assert streamed["streamed"] == 1
    assert streamed["ttft_ms"] > 0
    assert claude["cache_write_1h_tokens"] > 0
