"""One batch of spans over the wire: the official OTLP exporter, and what the server said to it."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from requests.adapters import HTTPAdapter

from tallystick.collectors.settings import Settings
from tallystick.collectors.span_queue import THREAD_NAME, Outcome

REFUSED_STATUS: Final = frozenset({400, 413, 422})
"""Answers that are about this batch, which won't get better by trying again. Others are about the server or the key."""


TALKATIVE: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.common._internal",
)
"""Loggers of the exporter, which tell of every retry, and with a stack trace of every value that can't be encoded. In the
queue's thread they are silenced: it says once what matters. Other users of the exporter keep their log."""


class Delivery:
    """Sends batches to the endpoint of `settings`. Blocks, for the thread of the queue only."""

    def __init__(self, settings: Settings) -> None:
        self.rejected = 0
        self.error = ""
        self._closed = False
        self._session = _Session()
        self._exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers={"Authorization": f"Bearer {settings.key}"} if settings.key else None,
            compression=Compression.Gzip if settings.compressed_by_default else None,
            session=self._session,
        )
        for logger in TALKATIVE:
            logging.getLogger(logger).addFilter(of_other_threads)

    def send(self, batch: Sequence[ReadableSpan]) -> Outcome:
        """Tries for as long as `OTEL_EXPORTER_OTLP_TIMEOUT` (10 s) says. Raises nothing."""
        if self._closed:
            return Outcome.KEEP
        session = self._session
        session.forget()
        try:
            self._exporter.export(batch)
        except Exception as error:
            self.error = type(error).__name__
            return Outcome.UNENCODABLE
        if session.status is not None and 200 <= session.status < 300:
            self.rejected += _rejected(session.body)
            self.error = ""
            return Outcome.STORED
        if session.status is not None:
            self.error = f"HTTP {session.status}"
            return Outcome.REFUSED if session.status in REFUSED_STATUS else Outcome.KEEP
        if session.error is not None:
            self.error = session.error
            return Outcome.KEEP
        self.error = "not encodable"
        return Outcome.UNENCODABLE

    def close(self) -> None:
        """Interrupts the retries of a `send` in another thread."""
        self._closed = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Session(requests.Session):
    """Remembers the last answer: the exporter itself tells success from failure only, and takes a redirect for success."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        self.status: int | None = None
        self.body = b""
        self.error: str | None = None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.forget()
        try:
            response = super().request(*args, **kwargs)
        except Exception as error:
            self.error = type(error).__name__
            raise
        self.status = response.status_code
        self.body = response.content
        return response

    def close(self) -> None:
        # urllib3 closes a pool's connections in an `atexit` of its own, once; those of what is sent after that would stay open.
        for adapter in self.adapters.values():
            if not isinstance(adapter, HTTPAdapter):
                continue
            for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
                for key in manager.pools.keys():  # noqa: SIM118, it can't be iterated
                    manager.pools[key].close()
        super().close()


def _rejected(body: bytes) -> int:
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except Exception:  # any receiver may answer anything with its 200
        return 0


def of_other_threads(record: logging.LogRecord) -> bool:
    """A filter of log records: not those of the queue's thread, nor of Kafka's client, whose threads bear its name."""
    return THREAD_NAME not in (record.threadName or "")
