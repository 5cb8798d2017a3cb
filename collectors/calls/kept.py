"""Text that waits to be counted, of all calls together within bounds."""

import threading
from collections.abc import Iterator
from typing import Any, Final

LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Of all text that waits. Beyond it, text is estimated from its characters at once and let go."""

# Reentrant, because the garbage collector may release text while this thread keeps some.
_lock = threading.RLock()
_used = 0


def used() -> int:
    """Bytes that are kept now."""
    return _used


class Kept:
    """Text of one call, or what holds it. Given back when this is dropped, wherever that is."""

    __slots__ = ("_size", "asked", "texts", "tokens")

    def __init__(self) -> None:
        self.asked: Any = None
        """What was asked, as the request's body has it; None where there was no room."""
        self.texts: list[str] = []
        """What was answered, in order."""
        self.tokens = 0
        """Estimate of what had no room."""
        self._size = 0

    def add(self, text: str) -> None:
        if self.take(text.__sizeof__()):
            self.texts.append(text)
        else:
            self.tokens += estimated(text)

    def ask(self, asked: Any) -> bool:
        """False where there is no room for it."""
        if not self.take(sum(text.__sizeof__() for text in texts_in(asked))):
            return False
        self.asked = asked
        return True

    def release(self) -> None:
        global _used  # noqa: PLW0603 - one bound for the process
        with _lock:
            _used -= self._size
            self._size = 0
        self.asked = None
        self.texts = []

    def take(self, size: int) -> bool:
        """Room for that many bytes; False where there is none."""
        global _used  # noqa: PLW0603
        with _lock:
            if _used + size > LIMIT_BYTES:
                return False
            _used += size
            self._size += size
            return True

    def __del__(self) -> None:
        if self._size:
            self.release()


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a request's messages, input or prompt."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def estimated(text: str) -> int:
    from tallystick.collectors.tokens import estimate_text

    return estimate_text(text)
