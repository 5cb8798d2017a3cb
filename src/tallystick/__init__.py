"""tallystick: observability and FinOps for language-model calls."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tallystick.collectors.scope import outgoing_baggage, scope

if TYPE_CHECKING:
    from tallystick.client import Client
    from tallystick.collectors.caches.hit import cache_hit
    from tallystick.collectors.carriers.asgi import asgi
    from tallystick.collectors.carriers.incoming import scope_rules
    from tallystick.collectors.carriers.wsgi import wsgi
    from tallystick.collectors.content import redact
    from tallystick.collectors.start import flush, flushed, status
    from tallystick.collectors.tokens import count_messages as count_tokens
    from tallystick.estimating import estimate_cost
    from tallystick.guarding import BudgetExceeded, CircuitOpen, breaker, guard

__all__ = [
    "BudgetExceeded",
    "CircuitOpen",
    "Client",
    "asgi",
    "breaker",
    "cache_hit",
    "count_tokens",
    "estimate_cost",
    "flush",
    "flushed",
    "guard",
    "outgoing_baggage",
    "redact",
    "scope",
    "scope_rules",
    "status",
    "wsgi",
]

# A service that is only metered never asks, and needn't load what asking takes.
_LAZY: Final = {
    "asgi": ("tallystick.collectors.carriers.asgi", "asgi"),
    "scope_rules": ("tallystick.collectors.carriers.incoming", "scope_rules"),
    "wsgi": ("tallystick.collectors.carriers.wsgi", "wsgi"),
    "BudgetExceeded": ("tallystick.guarding", "BudgetExceeded"),
    "CircuitOpen": ("tallystick.guarding", "CircuitOpen"),
    "breaker": ("tallystick.guarding", "breaker"),
    "guard": ("tallystick.guarding", "guard"),
    "Client": ("tallystick.client", "Client"),
    "cache_hit": ("tallystick.collectors.caches.hit", "cache_hit"),
    "count_tokens": ("tallystick.collectors.tokens", "count_messages"),
    "estimate_cost": ("tallystick.estimating", "estimate_cost"),
    "flush": ("tallystick.collectors.start", "flush"),
    "flushed": ("tallystick.collectors.start", "flushed"),
    "redact": ("tallystick.collectors.content", "redact"),
    "status": ("tallystick.collectors.start", "status"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
