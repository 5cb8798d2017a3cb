"""Instrumentations that read answers without care: what they raise over one of another shape must not reach the application."""

from collections.abc import Callable
from functools import reduce, wraps
from types import ModuleType
from typing import Any, Final

import wrapt

from tallystick.collectors.failures import warn_once

_OPENAI: Final = "opentelemetry.instrumentation.genai.openai"

READERS: Final = {
    f"{_OPENAI}.patch": "_set_response_properties",
    f"{_OPENAI}.chat_wrappers": "_ChatStreamMixin._process_chunk",
}
"""Module → what in it reads an answer and is called between the library and the application. What it returns isn't used."""


def watch() -> None:
    """Contains each reader as soon as its module is imported. One that a later version no longer has needs nothing."""
    for module, reader in READERS.items():
        wrapt.register_post_import_hook(_hook(reader), module)


def _hook(reader: str) -> Callable[[ModuleType], None]:
    def imported(module: ModuleType) -> None:
        *within, name = reader.split(".")
        try:
            owner = reduce(getattr, within, module)
            setattr(owner, name, _contained(getattr(owner, name)))
        except AttributeError:
            return

    return imported


def _contained(reader: Callable[..., Any]) -> Callable[..., Any]:
    # No wrapt: this is called for every chunk of a stream.
    @wraps(reader)
    def contained(*args: Any) -> Any:
        try:
            return reader(*args)
        except Exception as error:
            # Not ours, and not for TALLYSTICK_STRICT: the provider's answer isn't of the shape that the instrumentation expects.
            warn_once(
                "instrumentation",
                f"an answer couldn't be read by its instrumentation: {type(error).__name__}: {str(error)[:200]}",
            )
            return None

    return contained
