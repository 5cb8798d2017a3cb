"""tallystick: observability and FinOps for language-model calls."""

from typing import TYPE_CHECKING, Any

from tallystick.collectors.scope import outgoing_baggage, scope

if TYPE_CHECKING:
    from tallystick.client import Client

__all__ = ["Client", "outgoing_baggage", "scope"]


def __getattr__(name: str) -> Any:
    # A service that is only metered never asks, and needn't load what asking takes.
    if name == "Client":
        from tallystick.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
