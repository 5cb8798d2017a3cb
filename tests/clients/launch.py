"""Runs the scenarios of one client in this process, as a service would run, and prints one line of JSON of each.

python -P launch.py SCENARIOS.py bare|metered [INSTRUMENTOR …]

A scenario is a public function of the file, plain or async, of one parameter: the provider's base URL without `/v1`. What it returns or
raises is what the application sees. In `metered`, `tallystick.auto` is imported first and each scenario runs in a scope of its own.
INSTRUMENTOR (`module:Class`): turned on by the application itself after its libraries are imported.
"""

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import importlib
import importlib.util
import inspect
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def main(path: str, how: str, *instrumentors: str) -> None:
    if how == "metered":
        import tallystick.auto  # noqa: F401
    client = _load(path)
    for name in instrumentors:
        module, _, attribute = name.partition(":")
        getattr(importlib.import_module(module), attribute)().instrument()
    provider = sys.stdin.readline().strip()
    print(json.dumps({"known": [list(row) for row in getattr(client, "KNOWN", ())]}), flush=True)
    # One loop for all, as a service has it: some clients keep connections of the first that they see.
    with asyncio.Runner() as loop:
        for name, scenario in vars(client).items():
            if inspect.isfunction(scenario) and scenario.__module__ == client.__name__ and not name.startswith("_"):
                print(json.dumps({"scenario": name, **_seen(scenario, provider, _scope(name, how), loop)}), flush=True)
        # A stream that was dropped unread is over when it is collected.
        gc.collect()
    if how == "metered":
        from tallystick.collectors.start import flush, status

        flush()
        found = status()
        assert found is not None
        print(json.dumps({"instrumented": found.instrumented}), flush=True)


def _scope(name: str, how: str) -> contextlib.AbstractContextManager[Any]:
    if how == "bare":
        return contextlib.nullcontext()
    import tallystick

    return tallystick.scope(customer="acme", feature=name)


def _load(path: str) -> ModuleType:
    # Under a name of its own: a file `openai.py` must not stand in for the library.
    spec = importlib.util.spec_from_file_location("scenarios_of_a_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _seen(
    scenario: Callable[[str], Any], provider: str, scope: contextlib.AbstractContextManager[Any], loop: asyncio.Runner
) -> dict[str, Any]:
    """What the application sees of one scenario: result, exception, what is printed; and from when to when it ran (UTC ns)."""
    printed = io.StringIO()
    seen: dict[str, Any] = {"started_ns": time.time_ns()}
    with contextlib.redirect_stdout(printed), scope:
        try:
            result = scenario(provider)
            if inspect.iscoroutine(result):
                result = loop.run(result, context=contextvars.copy_context())
            seen["result"] = plain(result)
        except Exception as error:
            seen["error"] = _told(error)
    return {**seen, "ended_ns": time.time_ns(), "printed": printed.getvalue()}


def _told(error: BaseException | None) -> Any:
    if error is None:
        return None
    known = {"class": _type(error), "message": str(error), "status": getattr(error, "status_code", None)}
    return {**known, "cause": _told(error.__cause__)}


def plain(value: Any) -> Any:
    """`value` as JSON has it, with the names of types, so that another type of the same content is another result."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, BaseException):
        return _told(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return {"class": _type(value), **plain(dict(value))}
    if dataclasses.is_dataclass(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
        return {"class": _type(value), **fields}
    return {"class": _type(value)}


def _type(value: object) -> str:
    # `__class__`, as `isinstance` asks: a transparent proxy is what it stands for.
    return f"{value.__class__.__module__}.{value.__class__.__qualname__}"


if __name__ == "__main__":
    main(*sys.argv[1:])
