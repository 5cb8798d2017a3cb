"""An answer whose pieces pass in the provider's own encoding: they are kept as they are, and read at the end."""

from time import time_ns
from typing import Any

from tallystick.collectors.calls.answers import AT_ONCE, Answer


class Pieces(Answer):
    """Reading each piece would cost the application more than a microsecond, so only those up to the first token are read at once.

    What subclasses say: `_raw`, the piece in a chunk, `_first` whether a token is in a piece and of what kind, `_last` what the last one
    tells, `_all` what all of them do, for an answer that was cut short.
    """

    __slots__ = ("_paid", "pieces")

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self._paid = 0

    def see(self, chunk: Any) -> None:
        piece = self._raw(chunk)
        if piece is None:
            return
        if not self.first_ns and (kind := self._first(piece)):
            self.first_ns, self.first_kind = time_ns(), kind
        self.pieces.append(piece)
        if len(self.pieces) - self._paid >= AT_ONCE:
            self._pay()

    def finish(self) -> None:
        """The stream is over: the last piece is read. If that tells that it came to its end, no other needs to be."""
        if self.pieces:
            self._last(self.pieces[-1])
        if self.complete:
            self.pieces = []

    def read(self) -> None:
        """All pieces, where the last didn't tell everything: it takes its time."""
        pieces, self.pieces = self.pieces, []
        self._all(pieces)

    def _pay(self) -> None:
        waiting = self.pieces[self._paid :]
        if self.kept.take(sum(map(len, waiting))):
            self._paid = len(self.pieces)
        else:
            # No room: only the last is kept, which mostly tells everything.
            del self.pieces[self._paid : -1]
            self._paid = min(self._paid, len(self.pieces))

    def _raw(self, chunk: Any) -> bytes | None:
        raise NotImplementedError

    def _first(self, piece: bytes) -> str:
        raise NotImplementedError

    def _last(self, piece: bytes) -> None:
        raise NotImplementedError

    def _all(self, pieces: list[bytes]) -> None:
        raise NotImplementedError
