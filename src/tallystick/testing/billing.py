"""A local server that speaks the providers' reports of usage and cost, as far as they are read."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

ADMIN_KEY: Final = "sk-admin-of-the-test"
"""The only key that is let in."""

_ONE_DAY: Final = timedelta(days=1)
_TOKENS: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")


@dataclass(frozen=True)
class Used:
    """What a model was billed on a day: tokens in the order input, cache read, cache write 5 min, 1 h, output; USD a million of each."""

    day: date
    model: str
    tokens: tuple[int, int, int, int, int]
    rates: tuple[Decimal, Decimal, Decimal, Decimal, Decimal]

    def costs(self) -> dict[str, Decimal]:
        """USD by bucket, of those that were used."""
        return {
            name: count * rate / 1_000_000 for name, count, rate in zip(_TOKENS, self.tokens, self.rates, strict=True) if count
        }


@dataclass(frozen=True)
class Failure:
    """What the server answers instead: a status, seconds of Retry-After, or 200 with a body that is no page."""

    status: int
    retry_after: str = ""
    body: bytes = b'{"error": {"message": "failed as asked for"}}'


class BillingServer:
    """OpenAI's `/v1/organization/costs` and `/usage/…`, Anthropic's `cost_report` and `usage_report/messages`, on loopback.

    A context manager. A page has `page_days` buckets. `failures`: by the number of the request, from 0. `paths`: what was asked for.
    """

    def __init__(self, used: list[Used], *, page_days: int = 2, failures: Mapping[int, Failure] | None = None) -> None:
        self.used = used
        self.page_days = page_days
        self.failures = dict(failures or {})
        self.paths: list[str] = []
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    def __init__(self, billing: BillingServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.billing = billing


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what was asked for is in `paths`."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Http)
        billing = self.server.billing
        number = len(billing.paths)
        billing.paths.append(self.path)
        failure = billing.failures.get(number)
        split = urlsplit(self.path)
        query = {name.removesuffix("[]"): values for name, values in parse_qs(split.query).items()}
        key = self.headers.get("authorization", "").removeprefix("Bearer ") or self.headers.get("x-api-key", "")
        if failure is not None:
            self._answer(failure.status, failure.body, failure.retry_after)
        elif key != ADMIN_KEY:
            self._answer(401, json.dumps({"error": {"message": f"Incorrect API key provided: {key}."}}).encode())
        elif split.path not in _PAGES:
            self._answer(404, b'{"error": {"message": "no such report"}}')
        else:
            self._answer(200, json.dumps(_page(billing, split.path, query), indent=1).encode())

    def _answer(self, status: int, body: bytes, retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if retry_after:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(body)


def _page(billing: BillingServer, path: str, query: Mapping[str, list[str]]) -> dict[str, Any]:
    openai = "/organization/" in path
    first, last = (_day(query[name][0]) for name in (("start_time", "end_time") if openai else ("starting_at", "ending_at")))
    days = [first + _ONE_DAY * at for at in range((last - first).days)]
    start = int(query.get("page", ["page_0"])[0].removeprefix("page_"))
    here, more = days[start : start + billing.page_days], start + billing.page_days < len(days)
    data = []
    for day in here:
        results = [result for used in billing.used if used.day == day for result in _PAGES[path](used)]
        data.append(_bucket(day, results, openai))
    head = {"object": "page"} if openai else {}
    return {**head, "data": data, "has_more": more, "next_page": f"page_{start + billing.page_days}" if more else None}


def _bucket(day: date, results: list[dict[str, Any]], openai: bool) -> dict[str, Any]:
    began = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if openai:
        times = {"start_time": int(began.timestamp()), "end_time": int((began + _ONE_DAY).timestamp())}
        return {"object": "bucket", **times, "results": results}
    return {
        "starting_at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
        "ending_at": f"{began + _ONE_DAY:%Y-%m-%dT%H:%M:%SZ}",
        "results": results,
    }


def _day(text: str) -> date:
    return datetime.fromtimestamp(int(text), UTC).date() if text.isdecimal() else datetime.fromisoformat(text).date()


def _openai_costs(used: Used) -> list[dict[str, Any]]:
    names = {"input": "input", "cache_read": "cached input", "output": "output"}
    return [
        {
            "object": "organization.costs.result", "amount": {"value": float(cost), "currency": "usd"},
            "line_item": f"{used.model}, {names[bucket]}", "project_id": None, "organization_id": "org-test",
        }
        for bucket, cost in used.costs().items()
    ]  # fmt: skip


def _openai_usage(used: Used) -> list[dict[str, Any]]:
    if "embedding" in used.model:
        return []
    return [
        {
            "object": "organization.usage.completions.result", "input_tokens": used.tokens[0] + used.tokens[1],
            "input_cached_tokens": used.tokens[1], "output_tokens": used.tokens[4], "input_audio_tokens": 0, "output_audio_tokens": 0,
            "num_model_requests": 1, "project_id": None, "user_id": None, "api_key_id": None, "model": used.model, "batch": False,
        }
    ]  # fmt: skip


def _openai_embeddings(used: Used) -> list[dict[str, Any]]:
    if "embedding" not in used.model:
        return []
    return [
        {
            "object": "organization.usage.embeddings.result", "input_tokens": used.tokens[0], "num_model_requests": 1, "project_id": None,
            "user_id": None, "api_key_id": None, "model": used.model,
        }
    ]  # fmt: skip


_TYPES: Final = {
    "input": "uncached_input_tokens", "cache_read": "cache_read_input_tokens", "output": "output_tokens",
    "cache_write_5m": "cache_creation.ephemeral_5m_input_tokens", "cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
}  # fmt: skip


def _anthropic_costs(used: Used) -> list[dict[str, Any]]:
    return [
        {
            "amount": f"{cost * 100:f}", "currency": "USD", "cost_type": "tokens", "context_window": "0-200k", "service_tier": "standard",
            "description": f"{used.model} Usage - {bucket}", "model": used.model, "token_type": _TYPES[bucket], "workspace_id": None,
        }
        for bucket, cost in used.costs().items()
    ]  # fmt: skip


def _anthropic_usage(used: Used) -> list[dict[str, Any]]:
    counts = dict(zip(_TOKENS, used.tokens, strict=True))
    return [
        {
            "uncached_input_tokens": counts["input"], "cache_read_input_tokens": counts["cache_read"],
            "cache_creation": {
                "ephemeral_5m_input_tokens": counts["cache_write_5m"], "ephemeral_1h_input_tokens": counts["cache_write_1h"],
            },
            "output_tokens": counts["output"], "server_tool_use": {"web_search_requests": 0}, "api_key_id": None, "workspace_id": None,
            "model": used.model, "service_tier": "standard", "context_window": None,
        }
    ]  # fmt: skip


_PAGES: Final = {
    "/v1/organization/costs": _openai_costs,
    "/v1/organization/usage/completions": _openai_usage,
    "/v1/organization/usage/embeddings": _openai_embeddings,
    "/v1/organizations/cost_report": _anthropic_costs,
    "/v1/organizations/usage_report/messages": _anthropic_usage,
}
