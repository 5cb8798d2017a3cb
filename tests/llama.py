"""A real llama.cpp server with a generated model, as tests of probes drive it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tallystick.probes.config import EngineEntry, Start
from tallystick.probes.engines.starting import Started, started

OPTIONS: dict[str, str | int | float | bool] = {"threads": 1, "parallel": 4, "ctx-size": 8192, "warmup": False}


def entry(quantisation: str = "F32", **options: str | int | float | bool) -> EngineEntry:
    """Served as `generated-f32`, `generated-q8_0`, `generated-q4_0`; options by the names of llama-server's command line."""
    start = Start(model=f"generated:{quantisation}", options={**OPTIONS, **options})
    return EngineEntry(name=quantisation.lower(), engine="llamacpp", start=start)


@contextmanager
def llama(quantisation: str = "F32", **options: str | int | float | bool) -> Iterator[Started]:
    """Runs while the block runs; up in half a second. For a fixture of a module's scope: it costs 200 MB while it runs."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "llama.log"
        with started(entry(quantisation, **options), log, 60) as engine:
            yield engine
