"""docs/metrics.md: the list of the server's metrics, and what to be woken for."""

import sys
from pathlib import Path
from typing import Final

from tallystick.server.metrics import METRICS, Kind, Metric

_HEAD: Final = """# Metrics of the server

Made from the list in the code by `make docs`. Prometheus' names are those of OpenTelemetry with their unit; `/metrics` has them

* of `up`, `receiver` and `api` on the port of HTTP: to operators' keys, and without one where no key is asked for (a loopback address);
* of `ingest` and `alerts run` on `TALLYSTICK_HEALTH_PORT`, beside `/healthz` and `/readyz`, to everybody who reaches it: bind it to where Prometheus is.

Set `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` and they are sent there, too, by OTLP over HTTP every minute (the standard's other
variables hold). `process_…` are the process' CPU, memory and descriptors. No metric has a tenant, service or model: those are questions to the ledger.

An attribute's series is there once there is something to count.

| metric | kind | attributes | of | meaning |
| --- | --- | --- | --- | --- |
"""

_ALERTS: Final = """
## What to be woken for

| when | is |
| --- | --- |
| `increase(tallystick_consumer_skipped_total[10m]) > 0` | lost: retention was shorter than the consumers' absence |
| `max(tallystick_consumer_lag) > 0 and tallystick_consumer_freshness_seconds > 300` | consumers don't keep up, or the store doesn't take |
| `tallystick_ledger_age_seconds > 900` | nothing is entered any more, whatever the cause; longer where nights are quiet |
| `tallystick_receiver_direct == 0` for 5 minutes | no broker takes messages; the spool fills |
| `tallystick_receiver_spool_size_bytes > 0.5 * TALLYSTICK_SPOOL_BYTES` | at its limit senders get 503, and lose once their own queues are full |
| `increase(tallystick_receiver_spans_total{outcome="handed_back"}[5m]) > 0` | senders were told to send again |
| `increase(tallystick_consumer_dead_total[1h]) > 0` | `tallystick deadletters list` |
| `increase(tallystick_ingest_failures_total[10m]) > 5` | the store refuses batches: its log, its disk |
| `tallystick_alerts_age_seconds > 120` in all replicas | budgets aren't judged |
| `tallystick_alerts_deliveries{state="pending"} > 0` for 15 minutes | a channel doesn't take messages: `tallystick alerts status` |
| `tallystick audit` exits 1 (hourly, by cron) | something was lost: it says where |
"""


def markdown() -> str:
    """The text of docs/metrics.md."""
    return _HEAD + "".join(map(_row, METRICS)) + _ALERTS


def _row(metric: Metric) -> str:
    name = metric.prometheus + ("_{bucket,count,sum}" if metric.kind is Kind.HISTOGRAM else "")
    attributes = ", ".join(f"`{one}`" for one in metric.attributes)
    roles = ", ".join(f"`{role}`" for role in sorted(metric.roles))
    return f"| `{metric.name}`<br>`{name}` | {metric.kind} | {attributes} | {roles} | {metric.meaning} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
