"""Where messages go: the contract of a channel, and what it may end in. `open.channel_for` makes one from its configuration."""

from dataclasses import dataclass
from typing import Protocol

from tallystick.alerts.model import Message


@dataclass(frozen=True)
class Sent:
    """Delivered. thread: under what later messages of the same budget, period and value go, where the channel has threads."""

    thread: str | None = None


class Retry(Exception):
    """Not delivered, and may pass: 429, 5xx, a timeout, no connection. after_s: what the other side asked to wait for, if it did."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after_s = after_s


class Refused(Exception):
    """Not delivered, and sending again can't help: the reason says what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Channel(Protocol):
    """name: as in the configuration. interval_s: least seconds between two sends to it."""

    name: str
    interval_s: float

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        """Deliver at once or raise `Retry` or `Refused`; both tell no URL, token or password. Blocks for about ten seconds at most.

        delivery_id: stable over retries, so that the receiver can drop a second delivery. thread: what an earlier `Sent` told.
        """
        ...
