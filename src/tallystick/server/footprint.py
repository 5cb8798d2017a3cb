"""What a process keeps in memory of the engine's library, of which most is read once, at its start."""

import contextlib
import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_HEAD: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ \d+ +(.*/_chdb\.\S+)$")
"""A mapping of the library that can't be written, in /proc/self/smaps."""


def shed_library() -> None:
    """Unmap the pages of the engine's library that were read until now: 200 MB, mostly what linking it at the start went through.

    Those that are used are mapped again from the system's cache of the file. On Linux alone; elsewhere, or where it can't be done, nothing happens.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        libc = ctypes.CDLL(None)
        with Path("/proc/self/smaps").open(encoding="utf-8") as lines:
            found = list(never_written(lines))
        for begin, end in found:
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(mmap.MADV_DONTNEED))


def never_written(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Begin and end of the library's mappings that are the file's bytes still. What linking wrote would be lost, though it can't be written any more."""
    place: tuple[int, int] | None = None
    for line in smaps:
        head = _HEAD.match(line)
        if head:
            place = int(head[1], 16), int(head[2], 16)
        elif not line[0].isupper():
            place = None
        elif place and line.startswith("Anonymous:") and line.split()[1] == "0":
            yield place
