"""Event streams (text/event-stream), parsed as their bytes come. The format: https://html.spec.whatwg.org/multipage/server-sent-events.html

A parser of our own, for what is timed is the arrival of the bytes that complete an event, and each costs CPU of the client that measures.
"""

from typing import Final

MOST_BYTES: Final = 1 << 20
"""Of one event. What is larger is no token."""

_BOM: Final = b"\xef\xbb\xbf"


class EventStream:
    """The data of each event, as soon as its empty line is there. Names, ids and retries of events say nothing here and are dropped."""

    __slots__ = ("_begun", "_data", "_held", "_lf_due", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0
        self._lf_due = False
        self._begun = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that `piece` completes. Raises ValueError if one is larger than MOST_BYTES."""
        if (
            self._begun
            and not (self._rest or self._data or self._lf_due)
            and piece.startswith(b"data: ")
            and piece.find(b"\n") == len(piece) - 2
            and piece.endswith(b"\n\n")
            and b"\r" not in piece
        ):
            return [piece[6:-2]]  # what nearly all engines send: one event a write
        if self._lf_due and piece:
            piece = piece.removeprefix(b"\n")
            self._lf_due = False
        piece = self._rest + piece
        if not self._begun:
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._rest = piece
                return []
            piece = piece.removeprefix(_BOM)
            self._begun = True
        lines = piece.splitlines(keepends=True)
        self._rest = lines.pop() if lines and lines[-1][-1:] not in (b"\n", b"\r") else b""
        self._lf_due = piece.endswith(b"\r")  # the line is whole; what may follow belongs to its end
        events = [event for line in lines if (event := self._line(line.rstrip(b"\r\n"))) is not None]
        if self._held + len(self._rest) > MOST_BYTES:
            raise ValueError(f"an event of more than {MOST_BYTES:,} bytes")
        return events

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            if not self._data:
                return None
            event = b"\n".join(self._data)
            self._data.clear()
            self._held = 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._held += len(value) + 1
        return None
