"""Moments of a schedule, reached to a fraction of a millisecond.

An event loop's own timers wait in whole milliseconds (epoll's), which is late by 0.8 ms in the median and more than 1 ms each fifth time;
a thread's sleep is late by some 0.1 ms, and wakes the loop (benchmarks/probe_client.py).
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence


async def due(moments_ns: Sequence[int], origin_ns: int) -> AsyncIterator[int]:
    """The index of each moment once it has come; ascending, ns of time.perf_counter_ns() after `origin_ns`. None is left out or awaited twice.

    Whoever takes longer between two than there is time finds the next ones due at once.
    """
    loop = asyncio.get_running_loop()
    passed = asyncio.Event()
    ended = threading.Event()
    reached = 0

    def keep_time() -> None:
        nonlocal reached
        for number, moment_ns in enumerate(moments_ns, 1):
            left_ns = origin_ns + moment_ns - time.perf_counter_ns()
            while left_ns > 0:
                if ended.is_set():
                    return
                time.sleep(min(left_ns, _LONGEST_NS) / 1e9)
                left_ns = origin_ns + moment_ns - time.perf_counter_ns()
            reached = number
            try:
                loop.call_soon_threadsafe(passed.set)
            except RuntimeError:
                return  # the loop has ended without us

    thread = threading.Thread(target=keep_time, name="probe schedule", daemon=True)
    thread.start()
    try:
        for index in range(len(moments_ns)):
            while reached <= index:
                passed.clear()
                if reached <= index:
                    await passed.wait()
            yield index
    finally:
        ended.set()


_LONGEST_NS = 50_000_000
"""After which the thread looks whether it is still needed."""
