"""Runs of corrections: entries that are appended to the ledger together, or not at all. What they are: docs/corrections.md."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass(frozen=True)
class Line:
    """An entry of an allocation or trueup. started_at: aware, the day or hour it belongs to; cost_usd: at most 12 decimals.

    who: any of customer, feature, agent, team, user, session, service, environment; what: any of provider, request_model,
    response_model, operation, service_tier. Other names raise ValueError when the line is appended.
    """

    started_at: datetime
    cost_usd: Decimal
    tenant: str
    who: Mapping[str, str]
    what: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """A run. key: what it was for, '' if that may be done again; book: the price book's id, '' if none; undone_by: a run's id or ''."""

    id: str
    kind: str
    key: str
    at: datetime
    author: str
    reason: str
    book: str
    entries: int
    cost_usd: Decimal
    undone_by: str


class AlreadyMade(ValueError):
    """`made`, with the same key, stands and isn't undone."""

    def __init__(self, made: Made) -> None:
        super().__init__(f"{made.key} was made on {made.at:%Y-%m-%d %H:%M} by {made.author or 'nobody named'} as {made.id}")
        self.made = made


class Busy(RuntimeError):
    """Another run is under way; it ends by itself."""


class Corrections:
    """Makes runs, one at a time, through one connection; threads may share it.

    voiding: a lock that the ledger's writer holds while it voids calls. `with` it the last, short step of a run is made.
    """

    def __init__(
        self, client: "Client", clock: Callable[[], datetime], voiding: AbstractContextManager[object] | None = None
    ) -> None:
        self._client, self._clock = client, clock
        self._voiding = voiding or nullcontext()

    def append(
        self,
        kind: Literal["allocation", "trueup"],
        lines: Iterable[Line],
        *,
        key: str,
        reason: str,
        author: str,
        detail: Mapping[str, object],
    ) -> Made:
        """Enter lines, all or none. key names what they are for (`overhead 2026-10`). Raises AlreadyMade, Busy, ValueError."""
        raise NotImplementedError

    def undo(self, id: str, *, reason: str, author: str) -> Made:
        """Append the entries of a run again with opposite signs. Raises KeyError, AlreadyMade if it is undone already, Busy."""
        raise NotImplementedError

    def made(self, id: str) -> Made | None:
        """A run; None if there is none."""
        raise NotImplementedError

    def all(self, limit: int = 100) -> list[Made]:
        """The latest runs, the newest first."""
        raise NotImplementedError
