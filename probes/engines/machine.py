"""The machine that a probe runs on: what its figures were measured from, and with which GPUs if the engine runs there, too."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """For run.json. cores: those that this process may use. memory_bytes, and of each GPU: name, memory_bytes, driver, power_limit_watts.

    What can't be found out is None; `gpus` is empty where there is no NVIDIA driver.
    """
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu(),
        "memory_bytes": _memory(),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "tallystick": _version(),
        "gpus": gpus(),
    }


def gpus() -> list[dict[str, Any]]:
    """By NVML, in its order."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return []  # no package, no driver or no device: no GPU that could be told of
    try:
        driver = _words(pynvml.nvmlSystemGetDriverVersion())
        return [_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, driver: str) -> dict[str, Any]:
    device = nvml.nvmlDeviceGetHandleByIndex(index)

    def asked(question: Any) -> Any:
        try:
            return question(device)
        except nvml.NVMLError:
            return None

    memory, limit = asked(nvml.nvmlDeviceGetMemoryInfo), asked(nvml.nvmlDeviceGetEnforcedPowerLimit)
    return {
        "name": _words(asked(nvml.nvmlDeviceGetName)),
        "memory_bytes": memory and int(memory.total),
        "driver": driver,
        "power_limit_watts": limit and limit / 1000,
    }


def _words(value: Any) -> str:
    """Older versions of the package answer with bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine() or None)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version() -> str | None:
    try:
        return version("tallystick")
    except PackageNotFoundError:
        return None
