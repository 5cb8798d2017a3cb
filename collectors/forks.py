"""Forks: what is done around one by objects that may be gone by then, and what a thread imports while one comes."""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LONGEST_S: Final = 1.0
"""How long a fork is held up at most by an import in a thread of the collector."""


def at_fork(
    *, in_child: Callable[[], None], before: Callable[[], None] | None = None, in_parent: Callable[[], None] | None = None
) -> None:
    """Calls methods of an object around each fork, for as long as the object lives; the hooks themselves stay until the process ends."""
    if hasattr(os, "register_at_fork"):
        given = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
        os.register_at_fork(**{when: _while_it_lives(method) for when, method in given.items() if method is not None})


def _while_it_lives(method: Callable[[], None]) -> Callable[[], None]:
    held = weakref.WeakMethod(method)

    def call() -> None:
        if (alive := held()) is not None:
            alive()

    return call


class Importing:
    """`lock` is held by a thread while it may import something, and waited for by a fork. A child has another one.

    A module that is half imported by a thread stays locked for good in a child, where the thread isn't.
    """

    def __init__(self) -> None:
        self._renew()
        at_fork(before=self._hold, in_parent=self._let_go, in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.RLock()

    def _hold(self) -> None:
        self.lock.acquire(timeout=LONGEST_S)

    def _let_go(self) -> None:
        with suppress(RuntimeError):  # it wasn't got in time
            self.lock.release()
