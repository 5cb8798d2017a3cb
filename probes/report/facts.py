"""What was measured, as names and values, so that runs can be laid beside each other and only what differs be shown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tallystick.probes.runs import RunInfo

_LEFT_OUT = frozenset({"engine.url", "engine.metrics_url", "asked.engines", "asked.name", "entry.name"})
"""Addresses are no property of an engine; of the configuration, other entries are none of this run."""


def facts(info: RunInfo) -> dict[str, str]:
    """Name → value in words: `engine.version`, `engine.settings.n_ctx`, `entry.variant.quantisation`, `asked.load.kind`, `client.cores` …

    What isn't known is left out.
    """
    engine: dict[str, Any] = {}
    if info.engine is not None:
        engine = {
            name: getattr(info.engine, name) for name in ("kind", "model", "version", "endpoint", "context", "settings", "notes")
        }
    entry: Mapping[str, Any] = next((one for one in info.config.get("engines", ()) if one.get("name") == info.entry), {})
    parts = {"engine": engine, "entry": entry, "asked": info.config, "client": info.machine}
    found: dict[str, str] = {}
    for name, part in parts.items():
        _flat(name, part, found)
    return {"run": info.id, "started": when(info.started_ns), **found}


def differing(infos: Sequence[RunInfo]) -> dict[str, tuple[str, ...]]:
    """Facts that aren't the same in all runs, with each one's value; '' where a run has none."""
    return {name: values for name, values in _beside(infos).items() if len(set(values)) > 1 and name not in ("run", "started")}


def shared(infos: Sequence[RunInfo]) -> dict[str, str]:
    """Facts that all runs have alike."""
    return {name: values[0] for name, values in _beside(infos).items() if len(set(values)) == 1}


def model(info: RunInfo) -> str:
    """As the engine calls it, or as the configuration does where the engine was never reached."""
    known = facts(info)
    names = ("entry.variant.model", "engine.model", "entry.model", "entry.start.model")
    return next((known[name] for name in names if name in known), "")


def quantisation(info: RunInfo) -> str:
    """As the configuration says; '' where it doesn't."""
    return facts(info).get("entry.variant.quantisation", "")


def when(at_ns: int) -> str:
    """Unix nanoseconds as `2026-11-21 16:30:00 UTC`."""
    return f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _beside(infos: Sequence[RunInfo]) -> dict[str, tuple[str, ...]]:
    all_facts = [facts(info) for info in infos]
    names = dict.fromkeys(name for one in all_facts for name in one)
    return {name: tuple(one.get(name, "") for one in all_facts) for name in names}


def _flat(name: str, value: Any, found: dict[str, str]) -> None:
    if name in _LEFT_OUT or value in (None, "", {}, [], ()):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flat(f"{name}.{key}", inner, found)
    elif isinstance(value, list | tuple):
        if any(isinstance(inner, Mapping) for inner in value):
            for number, inner in enumerate(value):
                _flat(f"{name}.{number}", inner, found)
        else:
            found[name] = ", ".join(map(str, value))
    else:
        found[name] = str(value)
