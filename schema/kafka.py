"""A message on Kafka: a serialised ExportTraceServiceRequest as its value, and headers that inform.

So messages of a service's collector, of the receiver and of the OpenTelemetry Collector's Kafka exporter (`otlp_proto`, no headers) are
read alike. Whose spans they are is never said by the one who sends them: see docs/decisions/0009-straight-to-kafka.md.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

TOPIC: Final = "tallystick.otlp"
RECEIVED: Final = "tallystick.received"
"""Where receivers write: the only topic whose messages name their tenant."""
DEAD_LETTERS: Final = "tallystick.dead-letters"

MAX_REQUEST: Final = 1_000_000
"""Bytes of a message, uncompressed: a little below what brokers take by default (1,048,588)."""

CONTENT_TYPE: Final = "content-type"
"""`application/x-protobuf`, also where the header is missing."""
SENT: Final = "tallystick-sent-unix-nano"
"""When the sender handed the message over, by its own clock: decimal digits."""
SENDER: Final = "tallystick-sender"
"""Which program of which version: `collector/0.1.0`."""

TENANT: Final = "tallystick-tenant"
"""To whom the key belonged. It counts on the received topic only; elsewhere the consumer's configuration says it."""
OPERATOR: Final = "tallystick-operator"
"""`true` where the key was an operator's, whose spans may name their tenant themselves; else missing. On the received topic only."""
ARRIVED: Final = "tallystick-received-unix-nano"
"""When the receiver had the request, by its clock; the message's timestamp is the same in milliseconds."""
SPANS: Final = "tallystick-spans"
"""How many spans the value holds."""
RECEIVER: Final = "tallystick-receiver"
"""One process of a receiver: 16 hex digits."""
NUMBER: Final = "tallystick-number"
"""1, 2, 3 … of that process' messages. A message has the same number however often it arrives."""
ACCEPTED: Final = "tallystick-accepted"
"""Spans that the process had taken when it made the message, this one's among them, less those that it handed back to their senders:
of two messages the one with the higher number knows."""


class Received(NamedTuple):
    """What the headers of a message say. "" and None: nothing, or nothing that makes sense."""

    tenant: str = ""
    operator: bool = False
    received_unix_nano: int | None = None
    spans: int | None = None
    receiver: str = ""
    number: int | None = None
    accepted: int | None = None
    sender: str = ""
    sent_unix_nano: int | None = None
    content_type: str = "application/x-protobuf"


def headers(sender: str, sent_unix_nano: int) -> list[tuple[str, bytes]]:
    """The headers of a message. `sender` as in `SENDER`."""
    return [
        (CONTENT_TYPE, b"application/x-protobuf"),
        (SENT, str(sent_unix_nano).encode()),
        (SENDER, sender.encode()),
    ]


def received_headers(
    sender: str,
    sent_unix_nano: int,
    *,
    tenant: str,
    operator: bool,
    received_unix_nano: int,
    spans: int,
    receiver: str,
    number: int,
    accepted: int,
) -> list[tuple[str, bytes]]:
    """The headers of a receiver's message: what `read_headers` reads."""
    return [
        *headers(sender, sent_unix_nano),
        (TENANT, tenant.encode()),
        *([(OPERATOR, b"true")] if operator else []),
        (ARRIVED, b"%d" % received_unix_nano),
        (SPANS, b"%d" % spans),
        (RECEIVER, receiver.encode()),
        (NUMBER, b"%d" % number),
        (ACCEPTED, b"%d" % accepted),
    ]


def read_headers(given: Iterable[tuple[str, bytes | None]] | None) -> Received:
    """Raises nothing: anybody may have written them. Of a header that comes twice the last counts."""
    texts = {name: (value or b"").decode("utf-8", "replace") for name, value in given or ()}
    return Received(
        tenant=texts.get(TENANT, ""),
        operator=texts.get(OPERATOR) == "true",
        received_unix_nano=_whole(texts.get(ARRIVED)),
        spans=_whole(texts.get(SPANS)),
        receiver=texts.get(RECEIVER, ""),
        number=_whole(texts.get(NUMBER)),
        accepted=_whole(texts.get(ACCEPTED)),
        sender=texts.get(SENDER, ""),
        sent_unix_nano=_whole(texts.get(SENT)),
        content_type=texts.get(CONTENT_TYPE) or "application/x-protobuf",
    )


def _whole(text: str | None) -> int | None:
    """Digits of a UInt64, as all that comes of it is stored as one."""
    if text is None or not re.fullmatch(r"[0-9]{1,20}", text):
        return None
    number = int(text)
    return number if number < 1 << 64 else None


def is_topic(name: str) -> bool:
    """Whether Kafka takes `name` for a topic."""
    return re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) is not None and name not in {".", ".."}


@dataclass(frozen=True, slots=True)
class Brokers:
    """Which brokers, and as whom."""

    addresses: tuple[str, ...]
    security: Mapping[str, str] = field(repr=False)
    """By the names of kafka-python's settings."""


def addresses(text: str) -> tuple[str, ...]:
    """`HOST:PORT,…`, taken apart."""
    return tuple(one.strip() for one in text.split(",") if one.strip())


def security(environ: Mapping[str, str], complain: Callable[[str, str], None]) -> dict[str, str]:
    """Who we are to brokers, from TALLYSTICK_KAFKA_…, by the names of kafka-python's settings.

    complain: called with a variable's name after that prefix and what is wrong with it; if it returns, the default is taken.
    """
    given = {
        name: value for name, variable in _SECURITY.items() if (value := environ.get(f"TALLYSTICK_KAFKA_{variable}", "").strip())
    }
    sasl = "sasl_plain_username" in given
    tls = any(name.startswith("ssl_") for name in given)
    protocol = {(False, False): "PLAINTEXT", (False, True): "SSL"}.get((sasl, tls), "SASL_SSL")
    settings = {"security_protocol": _one_of(environ, "SECURITY_PROTOCOL", _PROTOCOLS, protocol, complain), **given}
    if settings["security_protocol"].startswith("SASL"):
        settings["sasl_mechanism"] = _one_of(environ, "SASL_MECHANISM", _MECHANISMS, _MECHANISMS[-1], complain)
    return settings


_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_SECURITY: Final = {
    "sasl_plain_username": "USERNAME",
    "sasl_plain_password": "PASSWORD",
    "ssl_cafile": "CERTIFICATE",
    "ssl_certfile": "CLIENT_CERTIFICATE",
    "ssl_keyfile": "CLIENT_KEY",
}


def _one_of(
    environ: Mapping[str, str], variable: str, known: Sequence[str], default: str, complain: Callable[[str, str], None]
) -> str:
    given = environ.get(f"TALLYSTICK_KAFKA_{variable}", "").strip().upper()
    if given and given not in known:
        complain(variable, f"TALLYSTICK_KAFKA_{variable}={given!r} is none of {', '.join(known)}; using {default}")
    return given if given in known else default
