"""What a record of a topic is to the ledger: a payload to enter, nothing, or a dead letter. Decided here; nothing is read or written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tallystick.ingest.flows import EMPTY, Aside, Origin
from tallystick.ingest.payload import Limits, Payload, PayloadError, check_frame
from tallystick.ingest.writer import Item
from tallystick.schema.kafka import Received, read_headers

MALFORMED: Final = "malformed"
"""The value is no ExportTraceServiceRequest."""
TOO_LARGE: Final = "too-large"
"""The value holds more spans, attributes or bytes than a request may."""
UNREADABLE: Final = "unreadable"
"""The form is right, and the engine can't decode it all the same."""
UNKNOWN_TENANT: Final = "unknown-tenant"
"""On the received topic: no header says whose spans they are."""
PARTLY_REJECTED: Final = "partly-rejected"
"""A copy: what could be entered was, and some of its spans could not."""
REASONS: Final = (MALFORMED, TOO_LARGE, UNREADABLE, UNKNOWN_TENANT, PARTLY_REJECTED)

_EARLIEST_MS: Final = 1_577_836_800_000
"""2020: what was written before is written by a clock that was never set."""

_DAY_NS: Final = 86_400_000_000_000

_TENANT: Final = 200
"""Characters of a tenant's name, and of a receiver's, at most."""


class Partition(NamedTuple):
    """Equal to, and as good a key as, Kafka's own TopicPartition."""

    topic: str
    number: int


class Record(NamedTuple):
    """A message as it came. timestamp_ms: as its producer or its broker says; negative where nobody does."""

    partition: Partition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory, headers not counted."""
        return len(self.value or b"") + len(self.key or b"")

    @property
    def coordinates(self) -> str:
        """`TOPIC/PARTITION/OFFSET`."""
        return f"{self.partition.topic}/{self.partition.number}/{self.offset}"


class Dead(NamedTuple):
    """Why a message can't be entered. reason: one of REASONS. detail: for people, without anything of the message's content."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Message:
    """A record and what it is: an item, dead, or, with neither, without spans. rejected: reason → spans left out of the item. aside: what the loss
    ledger is told where it doesn't reach the writer.
    """

    record: Record
    item: Item | None = None
    dead: Dead | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    aside: Aside | None = None

    @property
    def spans(self) -> int:
        return 0 if self.item is None else self.item.spans


class Topics(NamedTuple):
    """received: the topic whose messages name their tenant. tenants: of all others, topic → whose spans they hold."""

    received: str
    tenants: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        return [self.received, *self.tenants]


def read_message(record: Record, topics: Topics, limits: Limits, now_ns: int) -> Message:
    """What a record is. Raises nothing: anybody may have written it."""
    ours = record.partition.topic == topics.received
    headers = read_headers(record.headers) if ours else Received()
    tenant = headers.tenant if ours else topics.tenants[record.partition.topic]
    received_ns = _received(headers.received_unix_nano, record.timestamp_ms, now_ns)
    origin = Origin(*record.partition, record.offset, headers.receiver[:_TENANT], headers.number or 0, headers.accepted or 0)
    aside = Aside(origin, tenant[:_TENANT], received_ns, EMPTY, min(headers.spans or 0, limits.spans))
    found = _payload(record.value, tenant, limits)
    if isinstance(found, Dead):
        return Message(record, dead=found, aside=aside._replace(reason=found.reason))
    if not found.spans:
        return Message(record, rejected=found.rejected, aside=aside)
    item = Item(found.data, found.spans, tenant, received_ns, headers.operator, origin, found.accounts)
    return Message(record, item, rejected=found.rejected, aside=aside._replace(spans=found.spans))


def _payload(value: bytes | None, tenant: str, limits: Limits) -> Payload | Dead:
    if not tenant or len(tenant) > _TENANT or not tenant.isprintable():
        return Dead(UNKNOWN_TENANT, "the tenant's name is no name" if tenant else "no header names a tenant")
    if value is None:
        return Dead(MALFORMED, "there is no value")
    if len(value) > limits.decoded_bytes:
        return Dead(TOO_LARGE, f"over {limits.decoded_bytes} bytes")
    try:
        return check_frame(value, limits)
    except PayloadError as error:
        return Dead(TOO_LARGE if error.status == 413 else MALFORMED, _resembles(value) or str(error))


def _received(header_ns: int | None, timestamp_ms: int, now_ns: int) -> int:
    """When it was received: what is claimed, unless no clock that is set can have said it."""
    claimed = timestamp_ms * 1_000_000 if header_ns is None else header_ns
    return claimed if _EARLIEST_MS * 1_000_000 <= claimed <= now_ns + _DAY_NS else now_ns


def _resembles(value: bytes) -> str:
    """The usual mistakes of those who configure an exporter, or ''."""
    if value.startswith(b"\x1f\x8b"):
        return "the value is compressed by gzip; compression is Kafka's, of whole record batches"
    if value.lstrip()[:1] in (b"{", b"["):
        return "the value looks like JSON; of OpenTelemetry's encodings otlp_proto is read"
    return ""
