"""A client of a tallystick server: SQL, prices, status and OTLP over HTTP."""

import gzip
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    import httpx

RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP senders try again (OpenTelemetry protocol specification, OTLP/HTTP response)."""


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
    """Talks to the server at `url`. Safe to share between threads."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 60.0) -> None:
        import httpx

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

    def status(self) -> dict[str, Any]:
        """What the server received, stored, dropped and rejected so far. Raises Unreachable, Refused."""
        return dict(self._json("GET", "/v1/status"))

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

    def _answers(self, path: str, timeout_s: float) -> bool:
        try:
            return self._request("GET", path, timeout=timeout_s).status_code == 200
        except Unreachable:
            return False

    def _json(self, method: str, path: str, **options: Any) -> Any:
        response = self._request(method, path, **options)
        if response.status_code != 200:
            raise _refusal(response)
        try:
            return response.json()
        except ValueError:
            raise Refused(
                200, "not_tallystick", f"{self.url} answered something other than JSON", "is this a tallystick server?"
            ) from None

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
