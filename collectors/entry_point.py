"""What `opentelemetry-instrument` calls: the collector without a change of code. Light: it is loaded in every such process."""

import os
from collections.abc import Callable
from typing import Any

from tallystick.collectors.failures import contained
from tallystick.collectors.settings import read


def pre_instrument() -> None:
    """`opentelemetry_pre_instrument`: the application's tracer provider is made, its instrumentations aren't turned on yet."""
    with contained("starting the collector"):
        if not read(os.environ).auto:
            return
        from tallystick.collectors.start import start, status

        start()
        if (now := status()) is not None and now.provider != "off":
            _leave_out(_redundant())


def _redundant() -> frozenset[str]:
    """The official instrumentations, in normal form, of installed libraries that emit spans by themselves.

    They are there because tallystick requires them, for older versions of these libraries, and all that is installed is
    turned on: each call would be two spans in the application's own traces, too.
    """
    from tallystick.collectors.instrumentations import NATIVE
    from tallystick.collectors.libraries import LIBRARIES
    from tallystick.collectors.start import installed_instrumentations

    native = {choice.library for choice in installed_instrumentations() if choice.instrumentation == NATIVE}
    return frozenset(library.instrumentations[0] for library in LIBRARIES if library.distribution in native)


def _leave_out(redundant: frozenset[str]) -> None:
    import wrapt

    def load_instrumentor(load: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        point = args[0] if args else kwargs.get("entry_point")
        distribution = getattr(getattr(point, "dist", None), "name", "")
        return None if distribution.lower().replace("_", "-") in redundant else load(*args, **kwargs)

    wrapt.wrap_function_wrapper("opentelemetry.instrumentation.distro", "BaseDistro.load_instrumentor", load_instrumentor)
