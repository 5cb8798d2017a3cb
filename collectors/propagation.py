"""Keeps attribution out of requests: whom a call is for is nothing that a model provider should be told.

Whatever calls the global propagator puts the whole baggage of the current context into its request, and the Anthropic
SDK calls it on each request by itself. A propagator doesn't know where a request goes, so none of them carries
attribution; `outgoing_baggage` gives it to those that should.
"""

from typing import Final

from opentelemetry import baggage, propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

OURS: Final = "tallystick."


class WithoutAttribution(TextMapPropagator):
    """`inner`, with tallystick's entries taken out of the baggage that leaves. What comes in is left as it is."""

    def __init__(self, inner: TextMapPropagator) -> None:
        self._inner = inner

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        return self._inner.extract(carrier, context, getter)

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        for name in baggage.get_all(context):
            if name.startswith(OURS):
                context = baggage.remove_baggage(name, context)
        self._inner.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        return self._inner.fields


def keep_attribution_in() -> None:
    """Wraps the global propagator. One that the application sets later replaces this."""
    propagate.set_global_textmap(WithoutAttribution(propagate.get_global_textmap()))
