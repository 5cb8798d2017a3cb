"""What the parts of a process tell, as its metrics."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tallystick.alerts.ledger import Ledger
from tallystick.alerts.scheduler import Pace
from tallystick.ingest.cluster import Kind
from tallystick.ingest.committer import BatchWriter, Committer, Tally
from tallystick.ingest.receiver import Receiver
from tallystick.ingest.store import Store, read_sql, scalar
from tallystick.ingest.writer import Item, Written
from tallystick.server import metrics as m
from tallystick.server.metrics import Figures, Metrics

if TYPE_CHECKING:
    # These need what not every installation has.
    from tallystick.ingest.consumer import Consumer
    from tallystick.ingest.entering import Tally as Consumed
    from tallystick.ingest.kafka_sink import KafkaSink
    from tallystick.ingest.spool import Spool

_Row = tuple[float, Mapping[str, str]]

_LIMITS: Final[Mapping[str, int]] = {"max_execution_time": 5, "max_threads": 1}
"""What a query for figures may take."""

_PROBES_S: Final = 1.0
"""One look at all metrics takes less."""


def show_receiver(metrics: Metrics, receiver: Receiver) -> None:
    """What was refused at the door."""
    metrics.show(m.REFUSED, lambda: _by("error.type", receiver.refused))


def show_sink(metrics: Metrics, sink: "KafkaSink", spool: "Spool") -> None:
    """What was written to Kafka."""
    tally = sink.tally
    spans = ("received", "handed_back", "too_large")
    messages = ("sent", "spooled", "drained", "refused")
    metrics.show(m.RECEIVED, lambda: _by("outcome", {name: getattr(tally, name) for name in spans}))
    metrics.show(m.SENT, lambda: _by("outcome", {name: getattr(tally, name) for name in messages}))
    metrics.show(m.SINK_FAILURES, _one(lambda: tally.failures))
    metrics.show(m.DIRECT, _one(lambda: sink.direct))
    metrics.show(m.SPOOL_BYTES, _one(lambda: spool.waiting.used))
    metrics.show(m.SPOOL_MESSAGES, _one(lambda: spool.waiting.messages))


def show_committer(metrics: Metrics, committer: Committer) -> None:
    """What was entered without Kafka."""
    _show_entered(metrics, committer.tally)
    metrics.show(m.WAITING, _one(lambda: committer.waiting[0]))


def show_consumer(metrics: Metrics, consumer: "Consumer") -> None:
    """What was read from Kafka and entered."""
    tally = consumer.tally
    _show_entered(metrics, tally)
    metrics.show(m.MESSAGES, _one(lambda: tally.messages))
    metrics.show(m.DEAD, lambda: _by("reason", tally.dead))
    metrics.show(m.SKIPPED, _one(lambda: tally.skipped_messages))
    metrics.show(m.REBALANCES, _one(lambda: tally.rebalances))
    metrics.show(
        m.LAG, lambda: [(lag, {m.TOPIC: at.topic, m.PARTITION: str(at.number)}) for at, lag in sorted(consumer.lag().items())]
    )
    metrics.show(m.FRESHNESS, _one(consumer.freshness_s))


def show_alerts(metrics: Metrics, pace: Callable[[], Pace], ledger: Ledger) -> None:
    """How evaluations fare, and what is to be delivered."""

    def age_s() -> float | None:
        last = pace().last
        return None if last is None else (datetime.now(UTC) - last.at).total_seconds()

    def lateness_s() -> float | None:
        lag = pace().lag
        return None if lag is None else lag.total_seconds()

    def deliveries() -> Iterator[_Row]:
        channels = ledger.deliveries.status()
        for state in ("pending", "sending", "sent", "refused", "silenced"):
            yield sum(getattr(channel, state) for channel in channels), {"state": state}

    metrics.show(m.LATENESS, _one(lateness_s))
    metrics.show(m.EVALUATION_AGE, _one(age_s))
    metrics.show(m.ALERT_FAILURES, _one(lambda: pace().failures))
    metrics.show(m.LEADING, _one(lambda: pace().leading))
    metrics.show(m.DELIVERIES, deliveries)


def show_store(metrics: Metrics, store: Store) -> None:
    """What the store holds, and how probes stand by it. Each is a short query when somebody looks."""
    sizes = read_sql("store_size").replace("{{database}}", store.dialect.rows)

    def column(place: int) -> Iterator[_Row]:
        found = dict[str, int]()
        for rows in _of_hosts(store, sizes):
            for row in rows:
                found[row[0]] = found.get(row[0], 0) + int(row[place])
        yield from _by("table", found)

    def age_s() -> float | None:
        with store.reader(None, _LIMITS) as reader:
            age: float | None = scalar(reader, read_sql("ledger_age"))
            return age

    metrics.show(m.ROWS, lambda: column(1))
    metrics.show(m.STORE_BYTES, lambda: column(2))
    metrics.show(m.LEDGER_AGE, _one(age_s))
    _show_probes(metrics, store)


def _show_probes(metrics: Metrics, store: Store) -> None:
    """How probes stand. One short query for all of them whenever somebody looks."""
    query, held = read_sql("probe_latest"), _Held(_PROBES_S)

    def rows() -> Sequence[Mapping[str, Any]]:
        def asked() -> list[Mapping[str, Any]]:
            with store.reader(None, _LIMITS) as reader:
                return list(reader.query(query).named_results())

        return held.get(asked)

    def column(name: str, scale: float = 1.0, **more: str) -> Iterator[_Row]:
        for row in rows():
            if row[name] is not None:
                yield float(row[name]) * scale, {**_of_probe(row), **more}

    def quantiles(name: str) -> Iterator[_Row]:
        for percent, quantile in ((50, "0.5"), (95, "0.95")):
            yield from column(f"{name}_p{percent}", 1e-3, quantile=quantile)

    def prices() -> Iterator[_Row]:
        for bucket in ("input", "cache_read", "output"):
            yield from column(f"{bucket}_usd", bucket=bucket)

    metrics.show(m.PROBE_STATE, lambda: [(1, {**_of_probe(row), "state": row["state"]}) for row in rows()])
    metrics.show(m.PROBE_AGE, lambda: [(time.time() - row["last_s"], _of_probe(row)) for row in rows()])
    metrics.show(m.PROBE_GOODPUT, lambda: column("goodput"))
    metrics.show(m.PROBE_OUTPUT, lambda: column("output"))
    metrics.show(m.PROBE_TTFT, lambda: quantiles("ttft"))
    metrics.show(m.PROBE_TPOT, lambda: quantiles("tpot"))
    metrics.show(m.PROBE_PRICE, prices)


def _of_probe(row: Mapping[str, Any]) -> dict[str, str]:
    return {"tallystick.probe.name": row["probe"], "tallystick.probe.entry": row["entry"]}


class _Held:
    """An answer, for so many seconds: several metrics are of one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until, self._answer = 0.0, list[Mapping[str, Any]]()

    def get(self, ask: Callable[[], list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._answer = ask()
                self._until = time.monotonic() + self._seconds
            return self._answer


def _of_hosts(store: Store, query: str) -> Iterator[Sequence[Sequence[Any]]]:
    if store.dialect.kind is Kind.EMBEDDED:
        # Threads that look come and go; a connection of each would stay.
        with store.reader(None, _LIMITS) as reader:
            yield reader.query(query).result_rows
    else:
        yield from (client.query(query).result_rows for client in store.each_host())


class TimedWriter:
    """A writer whose batches are timed."""

    def __init__(self, writer: BatchWriter, metrics: Metrics) -> None:
        self._writer, self._duration = writer, metrics.histogram(m.BATCH_DURATION)

    def write(self, items: Sequence[Item]) -> Written:
        began = time.perf_counter()
        written = self._writer.write(items)
        self._duration.record(time.perf_counter() - began)
        return written


class TimedRequests:
    """An application whose requests are timed, by route and status. Plain ASGI: bodies pass through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._duration = app, metrics.histogram(m.REQUEST_DURATION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "")
            # Anybody may make up paths and methods: only those that there are have names.
            attributes = {"http.request.method": scope["method"] if route else "_OTHER", "http.response.status_code": status}
            self._duration.record(time.perf_counter() - began, attributes | ({"http.route": route} if route else {}))


def _show_entered(metrics: Metrics, tally: "Tally | Consumed") -> None:
    def spans() -> Iterator[_Row]:
        yield tally.entered, {"outcome": "entered"}
        for outcome, counts in (("dropped", tally.dropped), ("rejected", tally.rejected)):
            for reason, count in list(counts.items()):
                yield count, {"outcome": outcome, "reason": reason}

    metrics.show(m.SPANS, spans)
    metrics.show(m.VOIDED, _one(lambda: tally.voided))
    metrics.show(m.BATCH_FAILURES, _one(lambda: tally.failures))


def _by(attribute: str, counts: Mapping[str, float]) -> Iterable[_Row]:
    return [(count, {attribute: name}) for name, count in list(counts.items())]


def _one(value: Callable[[], float | None]) -> Figures:
    def figures() -> Iterator[_Row]:
        now = value()
        if now is not None:
            yield float(now), {}

    return figures
