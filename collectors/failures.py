"""What happens to the collector's own errors: they never reach the application, except under test."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STRICT: Final = "TALLYSTICK_STRICT"

logger = logging.getLogger("tallystick")

_reported: dict[str, object] = {}
"""What was logged → whose call it was. Without a lock, which a fork in another thread's hands would leave taken for good."""


def warn_once(key: str, message: str) -> None:
    """Logs `message` as a warning, the first time in this process that it is called with `key`."""
    first = object()
    if _reported.setdefault(key, first) is first:
        logger.warning("tallystick: %s", message)


def report(doing: str, error: Exception) -> None:
    """Raises `error` where `TALLYSTICK_STRICT=1`, else logs it once for each `doing`, without a stack trace.

    To be called in an `except` block. While the interpreter ends nothing is said: then nothing can be imported any more.
    """
    if sys.is_finalizing():
        return
    if os.environ.get(STRICT) == "1":
        raise error
    warn_once(doing, f"{doing} failed: {type(error).__name__}: {str(error)[:200]}")


@contextmanager
def contained(doing: str) -> Iterator[None]:
    """`report` for a whole block."""
    try:
        yield
    except Exception as error:
        report(doing, error)
