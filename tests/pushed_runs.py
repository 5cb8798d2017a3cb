"""Bodies of POST /v1/probes/runs, made: runs an hour apart, of one stage a load."""

from collections.abc import Sequence
from typing import Any

START_NS = 1_763_600_400 * 10**9
HOUR_NS = 3600 * 10**9


def pushed(
    number: int = 0,
    *,
    probe: str = "llama",
    entry: str = "f32",
    state: str = "done",
    ttft_ms: float = 100,
    valid: bool = True,
    tokens_per_s: Sequence[float] = (200,),
    input_tokens: int = 100,
    requests: int = 0,
    ended: bool = True,
) -> dict[str, Any]:
    """The run of the hour `number`. requests: of its first stage, with three events each."""
    started = START_NS + number * HOUR_NS
    return {
        "run": {
            "id": f"run-{number:04}-{entry}",
            "probe": probe,
            "entry": entry,
            "state": state,
            "started_ns": started,
            "ended_ns": started + 60 * 10**9 if ended else None,
            "engine": {
                "kind": "llamacpp", "url": "http://127.0.0.1:8080", "model": "generated", "version": "b6000", "endpoint": "/v1/completions",
                "fields": ["ignore_eos"], "token_ids": True, "sees_usage": True, "context": 2048, "metrics_url": None,
            },
            "config": {
                "name": probe,
                "engines": [{"name": entry, "engine": "llamacpp", "variant": {"quantisation": "Q4_0"}}],
                "workload": {"input_tokens": input_tokens, "output_tokens": 20},
                "load": {"kind": "poisson", "rates": [4], "seed": number},
            },
            "machine": {"cores": 2},
        },
        "stages": [
            {
                "number": at,
                "load": f"poisson {4 * 2**at}/s",
                "valid": valid,
                "figures": [
                    {"name": "ttft_p50", "unit": "ms", "value": ttft_ms, "low": ttft_ms * 0.97, "high": ttft_ms * 1.03, "n": 100},
                    {"name": "tpot_p50", "unit": "ms", "value": 5, "low": 4.9, "high": 5.1, "n": 100},
                    {"name": "ttft_p99", "unit": "ms", "value": None, "n": 100},
                    {"name": "output_tokens_per_s", "unit": "tokens/s", "value": rate, "low": rate - 5, "high": rate + 5, "n": 100},
                    {"name": "good_requests_per_s", "unit": "requests/s", "value": rate / 20, "n": 100},
                ],
                "summary": {"window": None},
            }
            for at, rate in enumerate(tokens_per_s)
        ],
        "requests": [request(one) for one in range(requests)],
    }  # fmt: skip


def request(number: int) -> dict[str, Any]:
    """A line of records.jsonl.gz."""
    sent = number * 250_000_000
    return {
        "stage": 0, "number": number, "group": "", "warmup": False, "scheduled_ns": sent, "sent_ns": sent + 1000, "headers_ns": sent + 2000,
        "ended_ns": sent + 30_000_000, "events": [[sent + 2_000_000, "role", 0], [sent + 20_000_000, "content", 4], [sent + 25_000_000, "content", 5]],
        "outcome": "ok", "status": 200, "error": "", "finish_reason": "length", "input_tokens": 100, "output_tokens": 2,
        "usage": {"prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 2, "reasoning_tokens": None}, "counted_output": None,
    }  # fmt: skip


def priced(run: dict[str, Any]) -> dict[str, Any]:
    """Body of POST /v1/probes/prices: what was measured by a run."""
    return {
        "provider": "self", "model": "metrics", "valid_from": "2026-11-21T00:00:00Z", "run": run["run"]["id"], "definition": "made",
        "input": "0.2", "cache_read": "0.02", "output": "0.8",
    }  # fmt: skip
