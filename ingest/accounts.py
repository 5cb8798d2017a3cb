"""What stands on a payload's resources for the loss ledger: whose spans they are, how many, and what a collector tells of itself."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tallystick.ingest.wire import Span
from tallystick.schema.names import COLLECTOR_BATCH, COLLECTOR_ENDED, COLLECTOR_ID, COLLECTOR_LOST

_SERVICE: Final = "service.name"
_TEXTS: Final = (_SERVICE, COLLECTOR_ID)
_COUNTS: Final = (COLLECTOR_BATCH, COLLECTOR_ENDED, COLLECTOR_LOST)
_MOST: Final = 256
"""Bytes of a text that are kept, as of all that is stored of a resource."""
_MOST_COUNT: Final = 1 << 62


class Account(NamedTuple):
    """Of one resource. collector, batch, ended, lost: docs/decisions/0009, "" and 0 where nobody tells. first: of its spans the first's id as a
    number, by which a batch that was sent in halves is told from one that was sent twice.
    """

    service: str = ""
    collector: str = ""
    batch: int = 0
    ended: int = 0
    lost: int = 0
    first: int = 0
    spans: int = 0


def account(resource: Resource, first: bytes, spans: int) -> Account:
    """first: the id of the first span."""
    texts, counts = dict[str, str](), dict[str, int]()
    for attribute in resource.attributes:
        if attribute.key in _TEXTS:
            texts[attribute.key] = attribute.value.string_value.encode()[:_MOST].decode(errors="ignore")
        elif attribute.key in _COUNTS:
            counts[attribute.key] = min(max(0, attribute.value.int_value), _MOST_COUNT)
    return Account(
        service=texts.get(_SERVICE, ""),
        collector=texts.get(COLLECTOR_ID, ""),
        batch=counts.get(COLLECTOR_BATCH, 0),
        ended=counts.get(COLLECTOR_ENDED, 0),
        lost=counts.get(COLLECTOR_LOST, 0),
        first=int.from_bytes(first[:8], "big"),
        spans=spans,
    )


def accounts(request: Any) -> Iterator[Account]:
    """Of a `Frame`, one for each resource that holds spans: of others there may be any number. Raises DecodeError where a first span is unreadable."""
    for one in request.resource_spans:
        scopes = [scope.spans for scope in one.scope_spans if scope.spans]
        if scopes:
            yield account(one.resource, Span.FromString(scopes[0][0]).span_id, sum(map(len, scopes)))
