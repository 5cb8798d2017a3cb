"""What the GPUs of this machine draw while something runs, by NVML: their energy counter where there is one, else power over time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

_EVERY_S: Final = 0.5


class Reading(NamedTuple):
    """at_ns: of a clock that never steps."""

    at_ns: int
    watts: float


@dataclass(frozen=True, slots=True)
class Energy:
    """Of all GPUs together. method: `counter`, `power` (sampled, by trapezoids), or both where the GPUs differ."""

    joules: float
    seconds: float
    gpus: tuple[str, ...]
    method: str

    @property
    def watts(self) -> float:
        """On average."""
        return self.joules / self.seconds


def joules(readings: Sequence[Reading]) -> float | None:
    """∫P dt by trapezoids; None for fewer than two readings."""
    if len(readings) < 2:
        return None
    return sum((after.at_ns - before.at_ns) / 1e9 * (before.watts + after.watts) / 2 for before, after in pairwise(readings))


class PowerMeter:
    """Measures from `start` to `stop`. Where NVML isn't there, or no GPU tells, it measures nothing and raises nothing."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._nvml: Any = None
        self._gpus: list[_Gpu] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began_ns = 0

    def start(self) -> Self:
        """In a thread of its own."""
        try:
            pynvml: Any = import_module("pynvml")
            pynvml.nvmlInit()
        except Exception:  # Its own errors aren't Python's, and a missing library is one of them.
            return self
        self._nvml = pynvml
        for at in range(pynvml.nvmlDeviceGetCount()):
            gpu = _Gpu.found(pynvml, at)
            if gpu is not None:
                self._gpus.append(gpu)
        self._began_ns = self._clock_ns()
        self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> Energy | None:
        """None: nothing could be measured."""
        if self._nvml is None or self._thread is None:
            return None
        self._stop.set()
        self._thread.join()
        seconds = (self._clock_ns() - self._began_ns) / 1e9
        told = [(gpu, found) for gpu in self._gpus if (found := gpu.joules()) is not None]
        self._nvml.nvmlShutdown()
        self._nvml = None
        if not told or seconds <= 0:
            return None
        methods = "+".join(sorted({gpu.method for gpu, _ in told}))
        return Energy(sum(found for _, found in told), seconds, tuple(gpu.name for gpu, _ in told), methods)

    def _sample(self) -> None:
        while True:
            for gpu in self._gpus:
                gpu.read(self._clock_ns())
            if self._stop.wait(_EVERY_S):
                break
        for gpu in self._gpus:
            gpu.read(self._clock_ns())


class _Gpu:
    def __init__(self, nvml: Any, handle: Any, name: str, counted: int | None) -> None:
        self._nvml, self._handle, self.name = nvml, handle, name
        self._first = self._last = counted
        self._readings: list[Reading] = []

    @classmethod
    def found(cls, nvml: Any, at: int) -> "_Gpu | None":
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(at)
            name = nvml.nvmlDeviceGetName(handle)
        except nvml.NVMLError:
            return None
        try:
            counted: int | None = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError:
            counted = None
        return cls(nvml, handle, name if isinstance(name, str) else name.decode(), counted)

    @property
    def method(self) -> str:
        return "power" if self._first is None else "counter"

    def read(self, at_ns: int) -> None:
        try:
            if self._first is None:
                self._readings.append(Reading(at_ns, self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000))
            else:
                self._last = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError:
            # What it told until then counts; a GPU that fell away tells no more.
            return

    def joules(self) -> float | None:
        if self._first is None or self._last is None:
            return joules(self._readings)
        # The counter is in millijoules since the driver was loaded.
        return (self._last - self._first) / 1000
