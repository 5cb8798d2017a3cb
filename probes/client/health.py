"""Whether the client itself kept up: what it was late with is no engine's latency. probes/figures/saturation.py decides from it."""

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from tallystick.probes.records import ClientHealth, Record

TICK_S: Final = 0.01
LATE_NS: Final = 1_000_000


class Ticker:
    """How late the event loop is, asked each 10 ms, and what its thread takes of a core. Up to 1 ms of the lag is the timer's own grain.

    The thread's CPU and not the process's: an engine that was started in the same process has threads of its own.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lags_s: list[float] = []
        self._began = time.perf_counter(), time.thread_time()
        self._timer = self._loop.call_later(TICK_S, self._tick, self._loop.time() + TICK_S)

    def _tick(self, due: float) -> None:
        now = self._loop.time()
        self._lags_s.append(now - due)
        self._timer = self._loop.call_at(now + TICK_S, self._tick, now + TICK_S)

    def stop(self, records: Iterable[Record], open_at_once: int) -> ClientHealth:
        """What it has seen; to be called once, on the loop's own thread."""
        self._timer.cancel()
        wall, cpu = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
        return health(records, self._lags_s, cpu / wall if wall > 0 else 0.0, open_at_once)


def health(records: Iterable[Record], lags_s: Iterable[float], cpu_share: float, open_at_once: int) -> ClientHealth:
    """Requests of a closed loop are due when they are sent, so never late."""
    late_ns = [record.sent_ns - record.scheduled_ns for record in records if record.scheduled_ns is not None]
    lags = sorted(lags_s)
    return ClientHealth(
        late_share=sum(one > LATE_NS for one in late_ns) / len(late_ns) if late_ns else 0.0,
        most_late_ms=max(late_ns, default=0) / 1e6,
        lag_p99_ms=lags[(len(lags) * 99 - 1) // 100] * 1e3 if lags else 0.0,
        most_lag_ms=lags[-1] * 1e3 if lags else 0.0,
        cpu_share=cpu_share,
        open_at_once=open_at_once,
    )
