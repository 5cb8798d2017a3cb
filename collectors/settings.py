"""How the collector is configured: environment variables only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tallystick.collectors.failures import STRICT, warn_once
from tallystick.schema.kafka import TOPIC, addresses, is_topic, security


class Variable(NamedTuple):
    """One row of the table of settings."""

    name: str
    default: str
    meaning: str


VARIABLES: Final = (
    Variable(
        "TALLYSTICK_AUTO", "true", "`false`: `opentelemetry-instrument` doesn't start the collector; the import still does."
    ),
    Variable("OTEL_SDK_DISABLED", "false", "`true` turns the collector off: no provider, no instrumentation, no export."),
    Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "Full URL that model spans are sent to, unless `TALLYSTICK_URL` is set."),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "", "Base URL, `/v1/traces` is added, unless `TALLYSTICK_URL` is set."),
    Variable(
        "TALLYSTICK_URL",
        "http://127.0.0.1:4318",
        "Base URL of the tallystick server, `/v1/traces` is added. Comes before the two above, where a service's other traces may go.",
    ),
    Variable("TALLYSTICK_KEY", "", "API key, sent as `Authorization: Bearer …`; never logged."),
    Variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "`gzip`, `deflate` or `none`; also `…_TRACES_COMPRESSION`."),
    Variable(
        "TALLYSTICK_KAFKA",
        "",
        "Brokers (`host:port`, comma-separated) that model spans are sent to instead of a server. Needs `pip install 'tallystick[kafka]'`.",
    ),
    Variable("TALLYSTICK_KAFKA_TOPIC", TOPIC, "Topic of these messages; it must exist, or the brokers make it."),
    Variable(
        "TALLYSTICK_KAFKA_SECURITY_PROTOCOL",
        "",
        "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`; if unset, by what else is given.",
    ),
    Variable("TALLYSTICK_KAFKA_SASL_MECHANISM", "", "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512` (the one used if unset)."),
    Variable("TALLYSTICK_KAFKA_USERNAME", "", "User for SASL."),
    Variable("TALLYSTICK_KAFKA_PASSWORD", "", "Password for SASL; never logged."),
    Variable(
        "TALLYSTICK_KAFKA_CERTIFICATE", "", "File with the certificates that the brokers' are checked by; else the system's."
    ),
    Variable("TALLYSTICK_KAFKA_CLIENT_CERTIFICATE", "", "File with the client's own certificate, where brokers ask for one."),
    Variable("TALLYSTICK_KAFKA_CLIENT_KEY", "", "File with its key."),
    Variable("TALLYSTICK_CAPTURE_CONTENT", "false", "`true` sends prompts and completions, too: see Prompts."),
    Variable(
        "TALLYSTICK_STREAM_USAGE",
        "count",
        "Chat completions that are streamed without `include_usage`: `count` counts their tokens, `ask` asks the provider for them.",
    ),
    Variable("OTEL_BSP_SCHEDULE_DELAY", "500", "Milliseconds for which an ended span waits for others at most."),
    Variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "Spans in one request at most."),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "4096", "Spans kept while the server is away; further ones are dropped and counted."),
    Variable("OTEL_TRACES_SAMPLER", "always_on", "Sampler of the provider, where the collector makes it; no call is lost by it."),
    Variable("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "", "Instrumentations to leave off, by name, comma-separated; `*` is all."),
    Variable(
        "TALLYSTICK_PROPAGATE_TO",
        "",
        "Hosts (`*.example.com`, comma-separated; `!host` leaves one out) told the scope beside those of private networks; `off`: none.",
    ),
    Variable(
        "TALLYSTICK_TRUST_BAGGAGE",
        "all",
        "Whose incoming baggage counts: `all`, `none`, or peers in networks (`10.0.0.0/8`, comma-separated).",
    ),
    Variable(
        "TALLYSTICK_SCOPE_RULES", "", "TOML file with rules that read a request's scope from its headers, path, query or token."
    ),
    Variable(
        "TALLYSTICK_SCOPE_IN_THREADS",
        "true",
        "`false`: a scope doesn't reach the threads and the jobs of thread pools that are started in it.",
    ),
    Variable("TALLYSTICK_GUARD_POLL", "10", "Seconds between questions to the server how budgets stand that guards hold to."),
    Variable(
        "TIKTOKEN_CACHE_DIR",
        "",
        "Directory with tiktoken's encodings, to count tokens with; without it they are looked for where tiktoken keeps them.",
    ),
    Variable(STRICT, "0", "`1` raises the collector's own errors instead of logging each once. For tests."),
)
"""The settings that the collector itself reads. The OTLP exporter further honours the other `OTEL_EXPORTER_OTLP_*`."""

_DEFAULTS: Final = {variable.name: variable.default for variable in VARIABLES}


@dataclass(frozen=True, slots=True)
class Kafka:
    """Brokers to send to, and as whom."""

    brokers: tuple[str, ...]
    topic: str
    compressed: bool
    security: Mapping[str, str] = field(repr=False)
    """By the names of kafka-python's settings."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the collector takes from the environment, resolved."""

    auto: bool
    """Whether `opentelemetry-instrument` starts the collector."""
    disabled: bool
    endpoint: str
    key: str = field(repr=False)
    compressed_by_default: bool
    """Whether nothing in the environment says how to compress, so that it is gzip."""
    delay_s: float
    max_batch: int
    max_queue: int
    sampler_given: bool
    propagate_to: str
    trust_baggage: str
    scope_rules: str
    scope_in_threads: bool
    left_off: frozenset[str]
    kafka: Kafka | None
    capture_content: bool
    ask_usage: bool
    """Whether streams ask for usage that the application didn't ask for."""
    guard_poll_s: int

    @property
    def server(self) -> str:
        """Where spans go, as it may be logged: without user, password and query."""
        if self.kafka:
            return f"kafka://{','.join(self.kafka.brokers)}/{self.kafka.topic}"
        url = urlsplit(self.endpoint)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. A number that is none is replaced by its default, with a warning."""
    max_queue = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE")
    return Settings(
        auto=environ.get("TALLYSTICK_AUTO", "").strip().lower() != "false",
        disabled=environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
        endpoint=_endpoint(environ),
        key=environ.get("TALLYSTICK_KEY", "").strip(),
        compressed_by_default=not any(
            environ.get(name) for name in ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")
        ),
        delay_s=_positive(environ, "OTEL_BSP_SCHEDULE_DELAY") / 1000,
        max_batch=min(_positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), max_queue),
        max_queue=max_queue,
        sampler_given=bool(environ.get("OTEL_TRACES_SAMPLER")),
        propagate_to=environ.get("TALLYSTICK_PROPAGATE_TO", "").strip(),
        trust_baggage=environ.get("TALLYSTICK_TRUST_BAGGAGE", "").strip().lower(),
        scope_rules=environ.get("TALLYSTICK_SCOPE_RULES", "").strip(),
        scope_in_threads=environ.get("TALLYSTICK_SCOPE_IN_THREADS", "").strip().lower() != "false",
        left_off=frozenset(
            name.strip() for name in environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",") if name.strip()
        ),
        kafka=_kafka(environ),
        capture_content=environ.get("TALLYSTICK_CAPTURE_CONTENT", "").strip().lower() == "true",
        ask_usage=_ask_usage(environ),
        guard_poll_s=_positive(environ, "TALLYSTICK_GUARD_POLL"),
    )


def _ask_usage(environ: Mapping[str, str]) -> bool:
    given = environ.get("TALLYSTICK_STREAM_USAGE", "").strip().lower() or "count"
    if given not in ("ask", "count"):
        warn_once("TALLYSTICK_STREAM_USAGE", f"TALLYSTICK_STREAM_USAGE={given!r} is neither ask nor count; using count")
    return given == "ask"


def _kafka(environ: Mapping[str, str]) -> Kafka | None:
    brokers = addresses(environ.get("TALLYSTICK_KAFKA", ""))
    if not brokers:
        return None
    topic = environ.get("TALLYSTICK_KAFKA_TOPIC") or TOPIC
    if not is_topic(topic):
        warn_once("TALLYSTICK_KAFKA_TOPIC", f"TALLYSTICK_KAFKA_TOPIC={topic!r} is no name of a topic; using {TOPIC}")
        topic = TOPIC
    compression = environ.get("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION") or environ.get("OTEL_EXPORTER_OTLP_COMPRESSION")
    return Kafka(brokers, topic, compression != "none", security(environ, warn_once))


def _endpoint(environ: Mapping[str, str]) -> str:
    # A service may export its traces elsewhere already: what names tallystick comes first, or its key would go there.
    if not environ.get("TALLYSTICK_URL") and (traces := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return traces
    base = environ.get("TALLYSTICK_URL") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULTS["TALLYSTICK_URL"]
    return base.rstrip("/") + "/v1/traces"


def _positive(environ: Mapping[str, str], name: str) -> int:
    given = environ.get(name) or _DEFAULTS[name]
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    warn_once(name, f"{name}={given!r} is no positive whole number; using {_DEFAULTS[name]}")
    return int(_DEFAULTS[name])
