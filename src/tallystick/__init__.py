"""tallystick: observability and FinOps for language-model calls."""

from tallystick.collectors.scope import outgoing_baggage, scope

__all__ = ["outgoing_baggage", "scope"]
