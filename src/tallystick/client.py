"""A client of a tallystick server: SQL, prices, status, budgets, alerts and OTLP over HTTP."""

import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import quote

from tallystick.answers import Charge, DimensionValue, Spend, money, spend

if TYPE_CHECKING:
    import httpx

RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP senders try again (OpenTelemetry protocol specification, OTLP/HTTP response)."""


Moment = str | datetime

_SPEND_PAGE: Final = 10_000


class Column(NamedTuple):
    """A column of a result; `type` is ClickHouse's."""

    name: str
    type: str


@dataclass(frozen=True)
class Result:
    """Rows of a query: whole numbers are int, decimals Decimal, unknown None, the rest as JSON has it."""

    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]
    elapsed_ms: float

    def dicts(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


class Unreachable(Exception):
    """No server answers at the URL: start one or name another."""


class Refused(Exception):
    """The server answered with an error. `hint` says what to do, '' where the server didn't."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


class Delivery(NamedTuple):
    """What came of a batch of spans: how often it was sent, how many spans the server rejected and why."""

    attempts: int
    rejected: int
    reason: str


class Client:
    """Talks to the server at `url`. Safe to share between threads.

    Budgets and alerts are as the API answers them (models at /docs): amounts are strings, times ISO 8601 in UTC. They need an operator's key, where
    keys are needed. who: as whom it is remembered.

    patience_s: how long a question is asked again while the server says that it can't answer now. cache: keep answers to GET questions, as many as
    that, and ask whether they still hold.
    """

    def __init__(
        self, url: str, key: str | None = None, timeout_s: float = 60.0, *, patience_s: float = 10.0, cache: int = 0
    ) -> None:
        import httpx

        self._patience_s, self._cache_size = patience_s, cache
        self._cache: dict[str, tuple[str, bytes]] = {}

        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> Result:
        """Run one query; `params` bind to its `{name:Type}`. Raises Unreachable, Refused."""
        answer = self._json("POST", "/v1/sql", json={"query": query, "params": dict(params or {})})
        columns = ((column["name"], column["type"]) for column in answer["columns"])
        return result(columns, answer["rows"], answer["elapsed_ms"])

    def sql_file(self, query: str, params: Mapping[str, Any] | None = None, *, format: str) -> bytes:
        """The answer to one query as a file: `csv`, `ndjson`, `arrow` (an IPC stream) or `parquet`. Raises Unreachable, Refused."""
        body = {"query": query, "params": dict(params or {})}
        return self._answer("POST", "/v1/sql", json=body, params={"format": format}).content

    def questions(self) -> list[dict[str, Any]]:
        """The named questions: `name`, `sentence`, `definition` of the figures, `parameters`, `example`. Raises Unreachable, Refused."""
        return list(self._json("GET", "/v1/q")["questions"])

    def ask(self, name: str, **params: str | int | Decimal | Iterable[str]) -> Result:
        """The answer to a named question: `client.ask("spend", by="customer", since="30d", where=["feature=chat"])`.

        Raises Unreachable, Refused.
        """
        given = {
            key: list(value) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
            for key, value in params.items()
        }
        answer = self._json("GET", f"/v1/q/{quote(name, safe='')}", params=given)
        columns = ((column["name"], column["type"]) for column in answer["columns"])
        return result(columns, answer["rows"], answer["elapsed_ms"])

    def report_outcomes(self, outcomes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """What came of calls (fields: docs/outcomes.md); revenue as Decimal or text. How many were `accepted`; the `rejected` by index.

        Raises Unreachable, Refused.
        """
        body = json.dumps([dict(one) for one in outcomes], default=str)
        return dict(self._json("POST", "/v1/outcomes", content=body, headers={"content-type": "application/json"}))

    def spend(
        self,
        by: str | Sequence[str] = "customer",
        *,
        since: Moment = "30d",
        until: Moment | None = None,
        where: Mapping[str, str] | None = None,
        as_of: Moment | None = None,
        limit: int | None = None,
    ) -> Spend:
        """What was spent in [since, until), in at most `limit` groups (None: all). as_of: as it was known then. Raises Unreachable, Refused.

        A moment is an aware datetime, or what commands take: `30d`, `24h`, `2026-11-01`.
        """
        terms = {"by": by if isinstance(by, str) else ",".join(by), **_terms(since, until, where, as_of)}
        pages: list[Mapping[str, Any]] = []
        found = 0
        for page in self._pages("/v1/spend", terms, limit, _SPEND_PAGE):
            pages.append(page)
            found += len(page["rows"])
            if limit is not None and found >= limit:
                break
        return spend(pages, limit)

    def charges(
        self,
        *,
        since: Moment = "30d",
        until: Moment | None = None,
        where: Mapping[str, str] | None = None,
        as_of: Moment | None = None,
        page: int = 1000,
    ) -> Iterator[Charge]:
        """The entries of [since, until), the newest first, each once, fetched a page at a time. Raises Unreachable, Refused."""
        for found in self._pages("/v1/charges", _terms(since, until, where, as_of), None, page):
            yield from map(Charge.read, found["charges"])

    def dimensions(self) -> dict[str, str]:
        """What spend can be grouped and filtered by → what it means. Raises Unreachable, Refused."""
        return {one["name"]: one["meaning"] for one in self._json("GET", "/v1/dimensions")["dimensions"]}

    def dimension_values(
        self, name: str, *, prefix: str = "", since: Moment = "30d", until: Moment | None = None, limit: int = 50
    ) -> list[DimensionValue]:
        """Values that begin with `prefix`, those with the most calls first. Raises Unreachable, Refused."""
        params = {"prefix": prefix, "limit": limit, **_terms(since, until, None, None)}
        found = self._json("GET", f"/v1/dimensions/{quote(name, safe='')}/values", params=params)["values"]
        return [DimensionValue(value=one["value"], calls=one["calls"], cost_usd=money(one["cost_usd"])) for one in found]

    def price(self, price_id: str) -> dict[str, str] | None:
        """What a price id of the ledger stands for: columns of schema/sql/price_by_id.sql as text. None if it has none such.

        Raises Unreachable, Refused.
        """
        try:
            return dict(self._json("GET", "/v1/price", params={"id": price_id}))
        except Refused as error:
            if error.code == "no_such_price":
                return None
            raise

    def what_if(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What calls would have cost at other prices: fields and answer of /v1/whatif. With `prices` it needs an operator's key.

        Raises Unreachable, Refused.
        """
        if "prices" in question:
            return dict(self._json("POST", "/v1/whatif", json=dict(question), timeout=180))
        given = {name: value for name, value in question.items() if value is not None}
        return dict(self._json("GET", "/v1/whatif", params=given, timeout=180))

    def focus_days(self, *, since: str, until: str | None = None, rows: bool = False, **options: str) -> list[dict[str, Any]]:
        """Of each day `entries`, `entered_at`, `cost_usd`, `tokens`, `unpriced_tokens`; with `rows` also `rows`, `billed_usd` of its file.

        options: version, granularity, customer, as_of, as of /v1/focus/days. Raises Unreachable, Refused.
        """
        given = {"since": since, **({} if until is None else {"until": until}), "rows": rows, **options}
        return list(self._json("GET", "/v1/focus/days", params=given)["days"])

    def focus(self, *, since: str, until: str | None = None, format: str = "parquet", **options: str) -> Iterator[bytes]:
        """A FOCUS file in pieces, of 31 days at most; options as for `focus_days`. Raises Unreachable, Refused."""
        import httpx

        given = {"since": since, **({} if until is None else {"until": until}), "format": format, **options}
        patient = httpx.Timeout(3600, connect=5.0)
        try:
            with self._http.stream("GET", "/v1/focus", params=given, timeout=patient) as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                yield from response.iter_bytes()
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"{self.url} broke off ({error})") from error

    def reprice(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Price calls again: fields and answer of /v1/corrections/reprice. Needs an operator's key. Raises Unreachable, Refused."""
        return self._correct("/reprice", question, who)

    def void(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Void one call: fields and answer of /v1/corrections/void. Needs an operator's key. Raises Unreachable, Refused."""
        return self._correct("/void", question, who)

    def void_duplicates(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Void calls told twice: as /v1/corrections/void-duplicates. Needs an operator's key. Raises Unreachable, Refused."""
        return self._correct("/void-duplicates", question, who)

    def undo_correction(self, id: str, reason: str, *, who: str = "") -> dict[str, Any]:
        """The run that undoes it. Needs an operator's key. Raises Unreachable, Refused."""
        return self._correct(f"/{quote(id, safe='')}/undo", {"reason": reason}, who)

    def corrections(self, limit: int = 100) -> list[dict[str, Any]]:
        """The latest runs, the newest first. Needs an operator's key. Raises Unreachable, Refused."""
        return list(self._json("GET", "/v1/corrections", params={"limit": limit})["corrections"])

    def correction(self, id: str) -> dict[str, Any]:
        """One run. Needs an operator's key. Raises Unreachable, Refused."""
        return dict(self._json("GET", f"/v1/corrections/{quote(id, safe='')}"))

    def reconcile(self, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """An invoice beside the ledger: fields and answer of /v1/reconcile. Needs an operator's key. Raises Unreachable, Refused."""
        return dict(self._json("POST", "/v1/reconcile", json=dict(question), params={"who": who}, timeout=3600))

    def statement(self, period: str, where: Mapping[str, str], *, format: str = "html", **terms: str) -> str:
        """A statement as a file: `where` is dimension → value, terms are parameters of /v1/statements. Raises Unreachable, Refused."""
        given = {"period": period, "format": format, "for": [f"{name}={value}" for name, value in where.items()], **terms}
        response = self._request("GET", "/v1/statements", params=given)
        if response.status_code != 200:
            raise _refusal(response)
        return response.text

    def allocations(self) -> dict[str, Any]:
        """`rules`, and `runs`, the newest first. Needs an operator's key. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/allocations"))

    def allocate(self, rule: str, question: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Spread what a rule comes to: fields and answer of /v1/allocations/RULE. Needs an operator's key. Raises Unreachable, Refused."""
        path = f"/v1/allocations/{quote(rule, safe='')}"
        return dict(self._json("POST", path, json=dict(question), params={"who": who}, timeout=600))

    def status(self) -> dict[str, Any]:
        """What the server received, stored, dropped and rejected so far. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/status"))

    def audit(self, *, since: str = "24h", settle_s: int = 300) -> dict[str, Any]:
        """What was lost between calls and their rows: AuditAnswer of /docs. settle_s: after which what hasn't come is lost. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/audit", params={"since": since, "settle": settle_s}))

    def push_probe(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """A run of a probe, or a part of one: PushedRun → PushedAnswer of /docs. Needs an operator's key. Raises Unreachable, Refused."""
        body = gzip.compress(json.dumps(part, separators=(",", ":")).encode(), 1)
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        return dict(self._json("POST", "/v1/probes/runs", content=body, headers=headers))

    def probe_runs(self, **which: str | int) -> dict[str, Any]:
        """`runs`, the newest first, and `next`, which is `before` of the following page. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/probes/runs", params=which))

    def probe_run(self, id: str) -> dict[str, Any]:
        """One run: ProbeRunAnswer of /docs. Raises Unreachable, Refused."""
        return dict(self._json("GET", f"/v1/probes/runs/{quote(id, safe='')}"))

    def probe_schedules(self) -> dict[str, Any]:
        """`schedules`, and `problems` of the configuration's part. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/probes/schedules"))

    def enter_price(self, entry: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """A measured price of an own engine: PriceEntry → PriceInForce of /docs. Needs an operator's key. Raises Unreachable, Refused."""
        return dict(self._json("POST", "/v1/probes/prices", json=dict(entry), params={"who": who}))

    def measured_prices(self) -> list[dict[str, Any]]:
        """All that were entered, in the order in which later ones replace earlier ones. Needs an operator's key. Raises Unreachable, Refused."""
        return list(self._json("GET", "/v1/probes/prices")["prices"])

    def budgets(self, values: int = 20) -> dict[str, Any]:
        """`budgets` and how they stand, with the `values` that spent most of each; `problems`, `warnings`. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/budgets", params={"values": values}))

    def budget(self, name: str, values: int = 100) -> dict[str, Any]:
        """One, with forecasts also for the values of `each`. Raises Unreachable, Refused."""
        return dict(self._json("GET", _budget(name), params={"values": values}))

    def budget_history(self, name: str) -> dict[str, Any]:
        """`revisions` and `changes`, the oldest first, also of one that was deleted. Raises Unreachable, Refused."""
        return dict(self._json("GET", f"{_budget(name)}/history"))

    def put_budget(self, name: str, definition: Mapping[str, Any], *, who: str = "") -> dict[str, Any]:
        """Make it, or change it as a whole; the definition is an entry of `budgets:` in docs/budgets.md. Raises Unreachable, Refused."""
        return dict(self._json("PUT", _budget(name), json=dict(definition), params={"who": who}))

    def delete_budget(self, name: str, *, who: str = "") -> None:
        """Its history stays. Raises Unreachable, Refused."""
        self._json("DELETE", _budget(name), params={"who": who})

    def validate_budgets(self, configuration: str) -> dict[str, Any]:
        """What the server would make of this YAML: `problems` and `warnings` with line and field. Raises Unreachable, Refused."""
        headers = {"content-type": "application/yaml"}
        return dict(self._json("POST", "/v1/budgets/validate", content=configuration.encode(), headers=headers))

    def alerts(self, limit: int = 50, *, before: int | None = None, subject: str | None = None) -> dict[str, Any]:
        """`alerts`, the newest first, and `next`, which is `before` of the following page. Raises Unreachable, Refused."""
        given = {"limit": limit, "before": before, "subject": subject}
        return dict(self._json("GET", "/v1/alerts", params={name: value for name, value in given.items() if value is not None}))

    def alerts_status(self) -> dict[str, Any]:
        """How channels and evaluations fare. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/alerts/status"))

    def evaluate_alerts(self) -> dict[str, Any]:
        """Evaluate now: what was `judged` and `said`. Raises Unreachable, Refused."""
        return dict(self._json("POST", "/v1/alerts/evaluate"))

    def test_alerts(self, channel: str, *, who: str = "") -> dict[str, Any]:
        """Send a test message now: whether it was `sent`, or the `reason`. Raises Unreachable, Refused."""
        return dict(self._json("POST", "/v1/alerts/test", json={"channel": channel}, params={"who": who}))

    def silence(
        self, subject: str, until: datetime | timedelta, why: str, *, value: str | None = None, who: str = ""
    ) -> dict[str, Any]:
        """value: of what the budget or rule has `each` for; None: all of them. Raises Unreachable, Refused."""
        body = {"subject": subject, "value": value, "why": why, **_until(until)}
        return dict(self._json("POST", "/v1/alerts/silences", json=body, params={"who": who}))

    def silences(self, *, over: bool = False) -> list[dict[str, Any]]:
        """Those that hold, the newest first; with `over` those that are over, too. Raises Unreachable, Refused."""
        return list(self._json("GET", "/v1/alerts/silences", params={"all": over})["silences"])

    def unsilence(self, silence_id: int, *, who: str = "") -> None:
        """End it before its time. Raises Unreachable, Refused."""
        self._json("DELETE", f"/v1/alerts/silences/{silence_id}", params={"who": who})

    def acknowledge(
        self, subject: str, why: str, *, value: str = "", until: datetime | timedelta | None = None, who: str = ""
    ) -> dict[str, Any]:
        """Say that somebody has in hand what was said last; until None: for the rest of its period. Raises Unreachable, Refused."""
        body = {"subject": subject, "value": value, "why": why, **_until(until)}
        return dict(self._json("POST", "/v1/alerts/ack", json=body, params={"who": who}))

    def healthy(self, timeout_s: float = 2.0) -> bool:
        """Whether a server answers at the URL."""
        return self._answers("/healthz", timeout_s)

    def ready(self, timeout_s: float = 2.0) -> bool:
        """Whether it accepts spans."""
        return self._answers("/readyz", timeout_s)

    def send(self, spans: bytes, patience_s: float = 60.0, sleep: Callable[[float], object] = time.sleep) -> Delivery:
        """Deliver one serialised ExportTraceServiceRequest, trying again while the server asks for it or doesn't answer.

        Raises Refused when the server rejects it for good; Unreachable or Refused when `patience_s` of waiting didn't help.
        """
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        body = gzip.compress(spans, 1)
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        attempts, waited = 0, 0.0
        while True:
            attempts += 1
            try:
                response = self._request("POST", "/v1/traces", content=body, headers=headers)
            except Unreachable:
                pause = min(0.25 * 2**attempts, 5.0)
                if waited + pause > patience_s:
                    raise
            else:
                if response.status_code == 200:
                    partial = ExportTraceServiceResponse.FromString(response.content).partial_success
                    return Delivery(attempts, partial.rejected_spans, partial.error_message)
                pause = _retry_after(response.headers.get("retry-after"), attempts)
                if response.status_code not in RETRYABLE or waited + pause > patience_s:
                    raise _refusal(response)
            sleep(pause)
            waited += pause

    def _correct(self, path: str, question: Mapping[str, Any], who: str) -> dict[str, Any]:
        # A month of a large ledger takes a while, and ending the request wouldn't end it.
        return dict(self._json("POST", f"/v1/corrections{path}", json=dict(question), params={"who": who}, timeout=3600))

    def _answers(self, path: str, timeout_s: float) -> bool:
        try:
            return self._request("GET", path, timeout=timeout_s).status_code == 200
        except Unreachable:
            return False

    def _pages(self, path: str, terms: Mapping[str, Any], limit: int | None, most: int) -> Iterator[Mapping[str, Any]]:
        cursor: dict[str, str] = {}
        while True:
            page = self._json(
                "GET", path, params={**terms, **cursor, "limit": most if limit is None else max(1, min(limit, most))}
            )
            yield page
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def _answer(self, method: str, path: str, **options: Any) -> "httpx.Response":
        response = self._request(method, path, **options)
        attempts, waited = 1, 0.0
        while method == "GET" and response.status_code in RETRYABLE:
            pause = _retry_after(response.headers.get("retry-after"), attempts)
            if waited + pause > self._patience_s:
                break
            time.sleep(pause)
            attempts, waited = attempts + 1, waited + pause
            response = self._request(method, path, **options)
        if response.status_code != 200:
            raise _refusal(response)
        return response

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            return json.loads(
                self._kept(path, **options)
                if method == "GET" and self._cache_size
                else self._answer(method, path, **options).content
            )
        except ValueError:
            raise Refused(
                200, "not_tallystick", f"{self.url} answered something other than JSON", "is this a tallystick server?"
            ) from None

    def _kept(self, path: str, **options: Any) -> bytes:
        """The answer, from before if the server says that it still holds."""
        name = json.dumps([path, options], sort_keys=True, default=str)
        known = self._cache.pop(name, None)
        response = self._request("GET", path, headers={"if-none-match": known[0]}, **options) if known else None
        if known and response is not None and response.status_code == 304:
            self._cache[name] = known
            return known[1]
        if response is None or response.status_code != 200:
            response = self._answer("GET", path, **options)
        if tag := response.headers.get("etag"):
            self._cache[name] = tag, response.content
            while len(self._cache) > self._cache_size:
                self._cache.pop(next(iter(self._cache)), None)
        return response.content

    def _request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        import httpx

        try:
            return self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} didn't answer in time") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"no server answers at {self.url} ({error})") from error


def result(columns: Iterable[tuple[str, str]], rows: Iterable[Iterable[Any]], elapsed_ms: float) -> Result:
    """A Result from names and types of columns and the API's values, in which decimals and large whole numbers may be strings."""
    described = tuple(Column(name, kind) for name, kind in columns)
    readers = [_reader(column.type) for column in described]
    return Result(described, [tuple(map(_read, readers, row)) for row in rows], float(elapsed_ms))


def _reader(kind: str) -> Callable[[Any], Any] | None:
    for wrapper in ("LowCardinality(", "Nullable("):
        kind = kind.removeprefix(wrapper)
    if kind.startswith("Decimal"):
        return _decimal
    return int if kind.startswith(("UInt", "Int")) else None


def _decimal(value: object) -> Decimal:
    return Decimal(str(value))


def _read(reader: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if value is None or reader is None else reader(value)


def _terms(since: Moment, until: Moment | None, where: Mapping[str, str] | None, as_of: Moment | None) -> dict[str, Any]:
    moments = {"since": since, "until": until, "as_of": as_of}
    told = {name: at if isinstance(at, str) else at.isoformat() for name, at in moments.items() if at is not None}
    return {**told, "where": [f"{name}={value}" for name, value in (where or {}).items()]}


def _budget(name: str) -> str:
    return f"/v1/budgets/{quote(name, safe='')}"


def _until(end: datetime | timedelta | None) -> dict[str, str]:
    match end:
        case None:
            return {}
        case timedelta():
            return {"for": f"{max(1, round(end.total_seconds()))}s"}
        case _:
            return {"until": end.astimezone(UTC).isoformat()}


def _retry_after(header: str | None, attempts: int) -> float:
    """Seconds to wait: what the server asks for, at most 30, else twice as long each time."""
    if header is not None and header.isdigit():
        return min(float(header), 30.0)
    return min(0.25 * 2.0**attempts, 5.0)


def _refusal(response: "httpx.Response") -> Refused:
    try:
        error = json.loads(response.content)["error"]
        return Refused(response.status_code, error["code"], error["message"], error.get("hint") or "")
    except (ValueError, KeyError, TypeError):
        return Refused(response.status_code, "http", f"the server answered {response.status_code} {response.reason_phrase}")
