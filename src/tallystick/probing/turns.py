"""Turns of a machine: engines that take from each other can't be measured, so those of one machine wait for each other, whoever measures."""

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tallystick.probes.config import EngineEntry

_EVERY_S: Final = 0.5
_HERE: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


class Stopped(Exception):
    """Nobody wants it any more."""


def machine_of(entry: EngineEntry) -> str:
    """Its name: as the entry gives it, else the host of its URL; '' is this machine."""
    host = (urlsplit(entry.url).hostname or "") if entry.url else ""
    return entry.machine or ("" if host in _HERE else host)


@asynccontextmanager
async def machine_turn(machine: str, stop: asyncio.Event, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """While the block runs, no other process of this machine measures there. waiting: told once if one does now. Raises Stopped, OSError.

    A lock of the operating system, in its folder for temporary files: it ends with the process, however that ends.
    """
    name = hashlib.sha256(machine.encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"tallystick-probe-{name}.lock"
    handle = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        told = False
        while not _taken(handle):
            if not told:
                waiting()
                told = True
            try:
                async with asyncio.timeout(_EVERY_S):
                    await stop.wait()
                raise Stopped
            except TimeoutError:
                continue
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
