"""Settings: one table of name, environment variable, default and meaning, from which `--help` and docs/settings.md come."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallystick.schema.kafka import DEAD_LETTERS, RECEIVED


class Setting(NamedTuple):
    """One row of the table. `default` is None where there is none; `kind` parses the variable's text and raises ValueError."""

    name: str
    env: str
    kind: type[str] | type[int] | type[Path]
    default: str | int | Path | None
    doc: str


DEFAULT_URL: Final = "http://127.0.0.1:4318"

TABLE: Final = (
    Setting("url", "TALLYSTICK_URL", str, None, "Server that commands and collectors talk to."),
    Setting("key", "TALLYSTICK_KEY", str, None, "API key, sent as a bearer token. The server takes the tenant from it."),
    Setting("data", "TALLYSTICK_DATA", Path, Path("tallystick-data"), "Directory that holds the ledger."),
    Setting(
        "host",
        "TALLYSTICK_HOST",
        str,
        "127.0.0.1",
        "Address that `up` listens on. Any but a loopback address asks senders for a key.",
    ),
    Setting("port", "TALLYSTICK_PORT", int, 4318, "Port of HTTP: OTLP, the API and the page."),
    Setting("grpc_port", "TALLYSTICK_GRPC_PORT", int, 4317, "Port of OTLP/gRPC; 0 is off."),
    Setting(
        "config",
        "TALLYSTICK_CONFIG",
        Path,
        None,
        "YAML file with prices of your own, allocations, recurring probes, channels, budgets and rules; read again when it changes.",
    ),
    Setting("public_url", "TALLYSTICK_PUBLIC_URL", str, None, "Address at which people open the page: for links in messages."),
    Setting(
        "alerts_every_s", "TALLYSTICK_ALERTS_EVERY_S", int, 10, "Seconds between two evaluations of budgets and rules; 0 is off."
    ),
    Setting(
        "alerts_url",
        "TALLYSTICK_ALERTS_URL",
        str,
        None,
        "Database of what was alerted, `postgresql+psycopg://USER@HOST/NAME` for several replicas; without it a file in the data directory.",
    ),
    Setting(
        "allow_private_webhooks",
        "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS",
        int,
        0,
        "1: alerts may be sent to private and loopback addresses.",
    ),
    Setting(
        "retention_days", "TALLYSTICK_RETENTION_DAYS", int, 400, "Days after which calls are deleted; 0 keeps them for ever."
    ),
    Setting(
        "max_body_bytes",
        "TALLYSTICK_MAX_BODY_BYTES",
        int,
        32 << 20,
        "Most bytes of one request after decompression; of JSON a quarter of it.",
    ),
    Setting("max_request_spans", "TALLYSTICK_MAX_REQUEST_SPANS", int, 50_000, "Most spans in one request."),
    Setting(
        "batch_window_ms",
        "TALLYSTICK_BATCH_WINDOW_MS",
        int,
        1000,
        "Longest time for which a trickle of requests is gathered for one insert.",
    ),
    Setting(
        "batch_max_spans", "TALLYSTICK_BATCH_MAX_SPANS", int, 80_000, "Spans at which an insert starts before that time is over."
    ),
    Setting(
        "clickhouse",
        "TALLYSTICK_CLICKHOUSE",
        str,
        None,
        "ClickHouse server that holds the ledger, `clickhouse://USER@HOST:8123/tallystick` (`clickhouses://` over TLS; hosts divided by commas are"
        " the shards of a cluster); without it the engine inside of the process, in the data directory.",
    ),
    Setting("clickhouse_password", "TALLYSTICK_CLICKHOUSE_PASSWORD", str, None, "Password of that user; never logged."),
    Setting(
        "clickhouse_cluster",
        "TALLYSTICK_CLICKHOUSE_CLUSTER",
        str,
        None,
        "Name of the cluster in the servers' `remote_servers`, where the ledger is sharded.",
    ),
    Setting(
        "clickhouse_replicated",
        "TALLYSTICK_CLICKHOUSE_REPLICATED",
        int,
        0,
        "1: tables are Replicated ones, made `ON CLUSTER`; the servers need a Keeper.",
    ),
    Setting(
        "clickhouse_ca",
        "TALLYSTICK_CLICKHOUSE_CA",
        Path,
        None,
        "PEM file of the authority that signed the servers' certificates, where the system doesn't know it.",
    ),
    Setting(
        "kafka",
        "TALLYSTICK_KAFKA",
        str,
        None,
        "Kafka brokers, `HOST:PORT,…`, between receivers and consumers. User, password and certificates: see the variables of the same prefix below.",
    ),
    Setting(
        "kafka_received",
        "TALLYSTICK_KAFKA_RECEIVED",
        str,
        RECEIVED,
        "Topic that receivers write, and nobody else may: its messages name their tenant.",
    ),
    Setting(
        "kafka_tenants",
        "TALLYSTICK_KAFKA_TENANTS",
        str,
        "",
        "Topics that others write (collectors, an OpenTelemetry Collector), and whose spans they hold: `TOPIC=TENANT,…`.",
    ),
    Setting("kafka_dead_letters", "TALLYSTICK_KAFKA_DEAD_LETTERS", str, DEAD_LETTERS, "Topic of messages that can't be entered."),
    Setting("kafka_group", "TALLYSTICK_KAFKA_GROUP", str, "tallystick", "Consumer group that shares the topics' partitions."),
    Setting(
        "kafka_instance",
        "TALLYSTICK_KAFKA_INSTANCE",
        str,
        None,
        "Name of this consumer in its group, of no other: it keeps its partitions then while it is started again.",
    ),
    Setting(
        "kafka_session_s",
        "TALLYSTICK_KAFKA_SESSION_S",
        int,
        45,
        "Seconds after which a consumer that is silent loses its partitions.",
    ),
    Setting(
        "dead_letters_run",
        "TALLYSTICK_DEAD_LETTERS_RUN",
        int,
        100,
        "Dead letters in a row at which a consumer stops: then it isn't the messages that are wrong. 0 is no ceiling.",
    ),
    Setting(
        "dead_letters_percent", "TALLYSTICK_DEAD_LETTERS_PERCENT", int, 20, "The same for their share of the last 1,000 messages."
    ),
    Setting(
        "spool_bytes",
        "TALLYSTICK_SPOOL_BYTES",
        int,
        1 << 30,
        "Most bytes that a receiver keeps in its data directory while no broker answers; beyond it senders are asked to wait.",
    ),
    Setting(
        "keys",
        "TALLYSTICK_KEYS",
        Path,
        None,
        "File of API keys, where processes share it; without it `keys.json` in the data directory.",
    ),
    Setting(
        "health_port",
        "TALLYSTICK_HEALTH_PORT",
        int,
        9464,
        "Port of `/healthz`, `/readyz` and `/metrics` of `ingest` and `alerts run`; 0 is off.",
    ),
)
"""What the command line and the server read. A flag of a command wins over its variable."""


class BadSetting(ValueError):
    """A variable's text can't be read as its kind, or is out of its range. The message names the variable."""


@dataclass(frozen=True)
class Settings:
    """The table's values. `url` is None where none was given: the server then is the one that holds `data`."""

    url: str | None
    key: str | None = field(repr=False)
    data: Path
    host: str
    port: int
    grpc_port: int
    config: Path | None
    public_url: str | None
    alerts_every_s: int
    alerts_url: str | None = field(repr=False)
    allow_private_webhooks: int
    retention_days: int
    max_body_bytes: int
    max_request_spans: int
    batch_window_ms: int
    batch_max_spans: int
    clickhouse: str | None
    clickhouse_password: str | None = field(repr=False)
    clickhouse_cluster: str | None
    clickhouse_replicated: int
    clickhouse_ca: Path | None
    kafka: str | None
    kafka_received: str
    kafka_tenants: str
    kafka_dead_letters: str
    kafka_group: str
    kafka_instance: str | None
    kafka_session_s: int
    dead_letters_run: int
    dead_letters_percent: int
    spool_bytes: int
    keys: Path | None
    health_port: int

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **flags: Any) -> "Settings":
        """Values of flags (None is not given), else of the environment, else defaults. Raises BadSetting.

        A directory given as a flag outweighs a server named by the environment.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {
            row.name: flags[row.name] if flags.get(row.name) is not None else _from_environment(row, environ) for row in TABLE
        }
        if flags.get("data") is not None and flags.get("url") is None:
            values["url"] = None
        return cls(**values)


def _from_environment(row: Setting, environ: Mapping[str, str]) -> str | int | Path | None:
    text = environ.get(row.env, "").strip()
    if not text:
        return row.default
    try:
        value = row.kind(text)
    except ValueError:
        raise BadSetting(f"{row.env} is no whole number: {text!r}") from None
    if isinstance(value, int) and value < 0:
        raise BadSetting(f"{row.env} is negative: {text!r}")
    if row.name in {"url", "public_url"} and not text.startswith(("http://", "https://")):
        raise BadSetting(f"{row.env} starts with neither http:// nor https://: {text!r}")
    return value


def setting(name: str) -> Setting:
    """The table's row of a field of Settings."""
    return next(row for row in TABLE if row.name == name)


def markdown() -> str:
    """The text of docs/settings.md."""
    from tallystick.collectors.settings import VARIABLES
    from tallystick.probes.engines.starting import PYTHON_VARIABLES

    return "\n".join([
        "# Settings",
        "",
        "Made from the tables in the code by `make docs`. A flag of a command wins over its variable; an empty variable is none.",
        "",
        "## Server and command line",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
        *(f"| `{row.env}` | {_shown(row.default)} | {row.doc} |" for row in TABLE),
        "",
        "## In an instrumented service",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
        *(f"| `{row.name}` | {_shown(row.default)} | {row.meaning} |" for row in VARIABLES),
        "",
        "## Where a probe starts engines",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
        *(f"| `{name}` | tallystick's own | Python interpreter that has {kind}. |" for kind, name in PYTHON_VARIABLES.items()),
        "| `DO_NOT_TRACK` | `1` | `0`: engines may tell their makers of their use. |",
        "",
    ])  # fmt: skip


def _shown(default: object) -> str:
    return "none" if default in (None, "") else f"`{default}`"


if __name__ == "__main__":
    Path("docs/settings.md").write_text(markdown(), encoding="utf-8")
