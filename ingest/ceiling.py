"""When there are too many dead letters to go on: then it isn't the messages that are wrong, but what reads them, or where they come from."""

from collections import deque
from typing import Final

RUN: Final = 100
"""Dead letters in a row. A sender with a broken exporter is one among others; nothing but dead letters, as many as this, is a topic that holds
something else, or a consumer that can't read what it is for."""

PERCENT: Final = 20
"""Of the last WINDOW messages. Above it, what is lost sight of is no longer an exception that somebody looks through by hand."""

WINDOW: Final = 1_000
"""Messages: of 512 spans each half a million spans, so that what one sender does in a moment doesn't stop all others."""


class Ceiling:
    """Counts messages in the order in which they are dealt with. run, percent: 0 is no ceiling."""

    def __init__(self, *, run: int = RUN, percent: int = PERCENT, window: int = WINDOW) -> None:
        self._run, self._most = run, window * percent // 100
        self._last: deque[bool] = deque(maxlen=window)
        self._dead = self._in_a_row = 0
        self.reached = ""
        """Why to stop; '' until then."""

    def note(self, dead: bool) -> None:
        """One more message."""
        if len(self._last) == self._last.maxlen:
            self._dead -= self._last[0]
        self._last.append(dead)
        self._dead += dead
        self._in_a_row = self._in_a_row + 1 if dead else 0
        if self._run and self._in_a_row >= self._run:
            self.reached = self.reached or f"{self._in_a_row} dead letters in a row"
        elif self._most and self._dead > self._most:
            self.reached = self.reached or f"{self._dead} of the last {len(self._last)} messages are dead letters"
