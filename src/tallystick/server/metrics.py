"""The server's own metrics: one list, and what shows them, at `/metrics` and by OTLP."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.exporter.prometheus._mapping import map_unit
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

from tallystick.server.health import Page

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Kind(StrEnum):
    """Of an instrument."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Role(StrEnum):
    """Of a process: its command."""

    UP = "up"
    RECEIVER = "receiver"
    INGEST = "ingest"
    API = "api"
    ALERTS = "alerts run"


class Metric(NamedTuple):
    """unit: in UCUM's notation, as OpenTelemetry asks. attributes: the only ones it ever has; none is a tenant, a service or a model, of which
    there may be any number.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    roles: frozenset[Role]
    attributes: tuple[str, ...] = ()

    @property
    def prometheus(self) -> str:
        """Its name at `/metrics`."""
        name, unit = self.name.replace(".", "_"), map_unit(self.unit)
        name = name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"
        return f"{name}_total" if self.kind is Kind.COUNTER else name


_ASKED: Final = frozenset({Role.UP, Role.RECEIVER, Role.API})
_TAKES: Final = frozenset({Role.UP, Role.RECEIVER})
_ENTERS: Final = frozenset({Role.UP, Role.INGEST})
_WRITES_KAFKA: Final = frozenset({Role.RECEIVER})
_READS_KAFKA: Final = frozenset({Role.INGEST})
_ALERTS: Final = frozenset({Role.UP, Role.ALERTS})
_STORE: Final = frozenset({Role.UP, Role.API})

TOPIC: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"

REQUEST_DURATION: Final = Metric(
    "http.server.request.duration", Kind.HISTOGRAM, "s", "Requests, from the first byte to the answer.", _ASKED,
    ("http.request.method", "http.route", "http.response.status_code"),
)  # fmt: skip
REFUSED: Final = Metric(
    "tallystick.receiver.refused", Kind.COUNTER, "{request}", "OTLP requests that were refused whole: senders don't repeat them.", _TAKES,
    ("error.type",),
)  # fmt: skip
RECEIVED: Final = Metric(
    "tallystick.receiver.spans", Kind.COUNTER, "{span}",
    "Spans taken for Kafka (outcome `received`), of them those whose senders were told to send them again (`handed_back`) and those that no message holds"
    " (`too_large`).", _WRITES_KAFKA, ("outcome",),
)  # fmt: skip
SENT: Final = Metric(
    "tallystick.receiver.messages", Kind.COUNTER, "{message}",
    "Messages written to Kafka straight away (outcome `sent`), to the spool (`spooled`), from there to Kafka (`drained`), and refused by brokers (`refused`).",
    _WRITES_KAFKA, ("outcome",),
)  # fmt: skip
SINK_FAILURES: Final = Metric(
    "tallystick.receiver.failures", Kind.COUNTER, "{failure}", "Times that brokers failed.", _WRITES_KAFKA
)
DIRECT: Final = Metric(
    "tallystick.receiver.direct", Kind.GAUGE, "", "1 while brokers take payloads straight away, 0 while they go to the spool.", _WRITES_KAFKA
)  # fmt: skip
SPOOL_BYTES: Final = Metric(
    "tallystick.receiver.spool.size", Kind.GAUGE, "By", "What waits on disk for the brokers.", _WRITES_KAFKA
)
SPOOL_MESSAGES: Final = Metric(
    "tallystick.receiver.spool.messages", Kind.GAUGE, "{message}", "The same in messages.", _WRITES_KAFKA
)
SPANS: Final = Metric(
    "tallystick.ingest.spans", Kind.COUNTER, "{span}",
    "Spans by what became of them: `entered` as a call, `dropped` (no model call, or told already) or `rejected` (unusable), the latter two with a reason.",
    _ENTERS, ("outcome", "reason"),
)  # fmt: skip
VOIDED: Final = Metric(
    "tallystick.ingest.voided", Kind.COUNTER, "{call}", "Calls taken back, as a better span told of them.", _ENTERS
)
BATCH_DURATION: Final = Metric("tallystick.ingest.batch.duration", Kind.HISTOGRAM, "s", "Batches written to the store.", _ENTERS)
BATCH_FAILURES: Final = Metric(
    "tallystick.ingest.failures", Kind.COUNTER, "{batch}", "Batches that the store didn't take.", _ENTERS
)
WAITING: Final = Metric("tallystick.ingest.waiting", Kind.GAUGE, "{span}", "Spans that wait to be entered.", frozenset({Role.UP}))
MESSAGES: Final = Metric("tallystick.consumer.messages", Kind.COUNTER, "{message}", "Messages dealt with.", _READS_KAFKA)
DEAD: Final = Metric("tallystick.consumer.dead", Kind.COUNTER, "{message}", "Dead letters.", _READS_KAFKA, ("reason",))
SKIPPED: Final = Metric(
    "tallystick.consumer.skipped", Kind.COUNTER, "{message}", "Messages that retention deleted before they were read: lost.", _READS_KAFKA
)  # fmt: skip
REBALANCES: Final = Metric(
    "tallystick.consumer.rebalances", Kind.COUNTER, "{rebalance}", "Partitions taken or given.", _READS_KAFKA
)
LAG: Final = Metric(
    "tallystick.consumer.lag", Kind.GAUGE, "{message}", "Messages of its partitions that aren't dealt with yet.", _READS_KAFKA, (TOPIC, PARTITION)
)  # fmt: skip
FRESHNESS: Final = Metric(
    "tallystick.consumer.freshness", Kind.GAUGE, "s", "Since the newest message that is dealt with was received.", _READS_KAFKA
)  # fmt: skip
LATENESS: Final = Metric(
    "tallystick.alerts.lateness", Kind.GAUGE, "s", "By how much the last evaluation began too late.", _ALERTS
)
EVALUATION_AGE: Final = Metric(
    "tallystick.alerts.age", Kind.GAUGE, "s", "Since the last evaluation that succeeded here.", _ALERTS
)
ALERT_FAILURES: Final = Metric("tallystick.alerts.failures", Kind.COUNTER, "{evaluation}", "Evaluations that failed.", _ALERTS)
LEADING: Final = Metric("tallystick.alerts.leading", Kind.GAUGE, "", "1 in the replica that evaluates.", _ALERTS)
DELIVERIES: Final = Metric(
    "tallystick.alerts.deliveries",
    Kind.GAUGE,
    "{message}",
    "Messages of alerts by state, for as long as they are kept.",
    _ALERTS,
    ("state",),
)
ROWS: Final = Metric("tallystick.store.rows", Kind.GAUGE, "{row}", "Rows in the store.", _STORE, ("table",))
STORE_BYTES: Final = Metric("tallystick.store.size", Kind.GAUGE, "By", "Bytes on its disks, of one replica.", _STORE, ("table",))
LEDGER_AGE: Final = Metric(
    "tallystick.ledger.age", Kind.GAUGE, "s", "Since the newest payload that is entered was received.", _STORE
)
_PROBE: Final = ("tallystick.probe.name", "tallystick.probe.entry")
PROBE_STATE: Final = Metric(
    "tallystick.probe.state", Kind.GAUGE, "", "1 for the state of a probe's last run of an engine.", _STORE, (*_PROBE, "state")
)  # fmt: skip
PROBE_AGE: Final = Metric("tallystick.probe.age", Kind.GAUGE, "s", "Since that run began.", _STORE, _PROBE)
PROBE_GOODPUT: Final = Metric(
    "tallystick.probe.goodput", Kind.GAUGE, "{request}/s",
    "Answers a second within the target, of the last valid run's stage that had the most; this and the next three are of that stage.", _STORE, _PROBE,
)  # fmt: skip
PROBE_OUTPUT: Final = Metric("tallystick.probe.output", Kind.GAUGE, "{token}/s", "Output tokens a second.", _STORE, _PROBE)
PROBE_TTFT: Final = Metric(
    "tallystick.probe.ttft", Kind.GAUGE, "s", "Time to first token, median and 95th percentile.", _STORE, (*_PROBE, "quantile")
)  # fmt: skip
PROBE_TPOT: Final = Metric(
    "tallystick.probe.tpot", Kind.GAUGE, "s", "Time per output token after the first.", _STORE, (*_PROBE, "quantile")
)
PROBE_PRICE: Final = Metric(
    "tallystick.probe.price", Kind.GAUGE, "{USD}", "Measured price of a million tokens, as it was entered last.", _STORE, (*_PROBE, "bucket")
)  # fmt: skip

METRICS: Final = (
    REQUEST_DURATION, REFUSED, RECEIVED, SENT, SINK_FAILURES, DIRECT, SPOOL_BYTES, SPOOL_MESSAGES, SPANS, VOIDED, BATCH_DURATION, BATCH_FAILURES,
    WAITING, MESSAGES, DEAD, SKIPPED, REBALANCES, LAG, FRESHNESS, LATENESS, EVALUATION_AGE, ALERT_FAILURES, LEADING, DELIVERIES, ROWS, STORE_BYTES,
    LEDGER_AGE, PROBE_STATE, PROBE_AGE, PROBE_GOODPUT, PROBE_OUTPUT, PROBE_TTFT, PROBE_TPOT, PROBE_PRICE,
)  # fmt: skip
"""In the order of docs/metrics.md, which is made from it."""

Figures = Callable[[], Iterable[tuple[float, Mapping[str, str]]]]
"""A metric's values now, each with its attributes. Called on any thread, when somebody looks."""


class Metrics:
    """Of one process, until `close`. Where one of the standard variables names an endpoint, they are sent there by OTLP/HTTP, too."""

    def __init__(self, role: Role, environ: Mapping[str, str] = os.environ) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        readers: list[MetricReader] = [PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)]
        if any(environ.get(name) for name in _ENDPOINTS):
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        resource = (
            Resource.create() if environ.get("OTEL_SERVICE_NAME") else Resource.create({SERVICE_NAME: f"tallystick {role}"})
        )
        self._provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("tallystick")

    def show(self, metric: Metric, figures: Figures) -> None:
        """From now on, whenever somebody looks. Figures that can't be had at that moment (OSError, StoreError …) are left out."""

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            with contextlib.suppress(Exception):
                for value, attributes in figures():
                    yield Observation(value, dict(attributes))

        create = self._meter.create_observable_counter if metric.kind is Kind.COUNTER else self._meter.create_observable_gauge
        create(metric.name, [observe], metric.unit, metric.meaning)

    def histogram(self, metric: Metric) -> Histogram:
        """To be recorded on; seconds."""
        return self._meter.create_histogram(
            metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=_BOUNDS_S
        )

    def page(self) -> Page:
        """`/metrics`, in Prometheus' text format."""
        return Page(generate_latest(self._registry), CONTENT_TYPE_LATEST)

    def close(self) -> None:
        """Sends what is to be sent."""
        self._provider.shutdown()
