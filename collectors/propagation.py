"""Keeps attribution out of requests: whom a call is for is nothing that a model provider should be told.

Whatever calls the global propagator puts the whole baggage of the current context into its request, and the Anthropic
SDK calls it on each request by itself. A propagator doesn't know where a request goes, so none of them carries
attribution. What goes to services of one's own is written further down, where the host is known: see `carriers`.
"""

from collections.abc import Callable
from typing import Any, Final

import wrapt
from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

OURS: Final = "tallystick."


class WithoutAttribution(TextMapPropagator):
    """`inner`, with tallystick's entries taken out of the baggage that leaves, and of what comes in where that isn't `trusted`."""

    def __init__(self, inner: TextMapPropagator, trusted: bool = True) -> None:
        self._inner = inner
        self._trusted = trusted

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        extracted = self._inner.extract(carrier, context, getter)
        # Who sends isn't known here; that of trusted senders is read by the hooks of the servers.
        return extracted if self._trusted else _without_ours(extracted)

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        self._inner.inject(carrier, _without_ours(context), setter)

    @property
    def fields(self) -> set[str]:
        return self._inner.fields


def keep_attribution_in(trusted: bool = True) -> None:
    """Wraps the global propagator, and one that the application sets later. trusted: whether everybody's baggage counts."""
    propagate.set_global_textmap(WithoutAttribution(propagate.get_global_textmap(), trusted))

    def set_later(wrapped: Callable[..., None], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args and isinstance(args[0], TextMapPropagator) and not isinstance(args[0], WithoutAttribution):
            args = (WithoutAttribution(args[0], trusted), *args[1:])
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper("opentelemetry.propagate", "set_global_textmap", set_later)


def _without_ours(context: Any) -> Any:
    for name in baggage.get_all(context):
        if name.startswith(OURS):
            context = baggage.remove_baggage(name, context)
    return context
