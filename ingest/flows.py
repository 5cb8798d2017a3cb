"""The loss ledger's rows: what came, from where, and what became of it. Schema and meaning: schema/migrations/0008_flows.sql."""

import itertools
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tallystick.ingest.accounts import Account

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

HTTP: Final = "http"
"""The source of what came by OTLP into the process that entered it."""

EMPTY: Final = "empty"
"""Of a message that was set aside because it holds no spans: it stands there so that no offset is missing."""

_MOST_RESOURCES: Final = 1_000
"""Rows of one payload. No collector sends more; what has more is told in one row, without services."""


class Origin(NamedTuple):
    """Where a payload came from. source: `HTTP` or a topic, of which partition and offset are. receiver: the process that wrote it there, number:
    which of that process' messages it is, from 1, accepted: spans that it had taken by then, this message's among them, and not handed back;
    "" and 0 where nobody tells.
    """

    source: str
    partition: int = 0
    offset: int = 0
    receiver: str = ""
    number: int = 0
    accepted: int = 0


class Arrived(Protocol):
    """What is told of a payload that was entered: an Item of the writer."""

    @property
    def spans(self) -> int: ...
    @property
    def tenant(self) -> str: ...
    @property
    def received_ns(self) -> int: ...
    @property
    def origin(self) -> Origin | None: ...
    @property
    def accounts(self) -> Sequence[Account]: ...


class Became(NamedTuple):
    """What became of the spans of one service in one payload. calls: those that are model calls, entered now or before."""

    calls: int = 0
    rejected: int = 0

    def and_more(self, spans: int, *, rejected: bool) -> "Became":
        """With so many spans more."""
        return Became(self.calls, self.rejected + spans) if rejected else Became(self.calls + spans, self.rejected)


class Aside(NamedTuple):
    """A message that never reached the writer. reason: a dead letter's, or `EMPTY`. spans: as its headers say, 0 where they don't."""

    origin: Origin
    tenant: str
    received_ns: int
    reason: str
    spans: int = 0


class Flows:
    """Tells what became of batches. One of a writer."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._id = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def write(
        self, items: Sequence[Arrived], became: Sequence[Mapping[str, Became]], *, entered: int, earliest: datetime | None
    ) -> None:
        """The last step of a batch, when its calls are on disk. Raises ClickHouseError.

        became: of each item by service. entered: calls of the batch that were new, the first of which started `earliest`.
        """
        rows = [row for item, services in zip(items, became, strict=True) for row in self._rows(item, services)]
        if rows:
            rows[0] |= {"entered": entered, "earliest": _seconds(earliest)}
        _insert(self._client, rows)

    def _rows(self, item: Arrived, became: Mapping[str, Became]) -> Iterator[dict[str, Any]]:
        origin = item.origin or Origin(HTTP, receiver=self._id, number=next(self._numbers))
        head = _head(origin, item.tenant, item.received_ns)
        left = dict(became)
        told = [head | one | left.pop(one["service"], Became())._asdict() for one in _resources(item)]
        # Of services that the engine reads otherwise, or that weren't told one by one.
        told[0]["calls"] += sum(one.calls for one in left.values())
        told[0]["rejected"] += sum(one.rejected for one in left.values())
        yield from told


def record_aside(client: "Client", messages: Iterable[Aside]) -> None:
    """Tells of messages that never reached the writer, before their offsets are committed; again is as good. Raises ClickHouseError."""
    _insert(
        client,
        [_head(one.origin, one.tenant, one.received_ns) | {"spans": one.spans, "aside": one.reason} for one in messages],
    )


def _resources(item: Arrived) -> list[dict[str, Any]]:
    """service, collector and what it tells, and spans, once for each service and batch of a collector."""
    merged: dict[tuple[str, str, int], Account] = {}
    for one in item.accounts:
        key = one.service, one.collector, one.batch
        before = merged.get(key)
        merged[key] = one._replace(spans=one.spans + (before.spans if before else 0))
    if not merged or len(merged) > _MOST_RESOURCES:
        merged = {("", "", 0): Account(spans=item.spans)}
    return [one._asdict() for one in merged.values()]


def _head(origin: Origin, tenant: str, received_ns: int) -> dict[str, Any]:
    received = datetime.fromtimestamp(received_ns // 1_000_000_000, UTC)
    return origin._asdict() | {
        "tenant": tenant,
        "received_at": f"{received:%Y-%m-%d %H:%M:%S}.{received_ns // 1_000_000 % 1000:03}",
    }


def _seconds(at: datetime | None) -> str:
    return f"{at or datetime.fromtimestamp(0, UTC):%Y-%m-%d %H:%M:%S}"


def _insert(client: "Client", rows: Sequence[Mapping[str, Any]]) -> None:
    # As text: the client's own insert loads numpy and pandas.
    if rows:
        client.raw_insert("flows", None, "\n".join(map(json.dumps, rows)).encode(), fmt="JSONEachRow")
