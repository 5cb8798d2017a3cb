"""Prompts and completions stay in the process: what is taken off a span before it is sent, whatever recorded it."""

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan


class Outgoing(ReadableSpan):
    """A span on its way out: a copy, so that what other exporters of the application see isn't touched."""

    def stamp(self, resource: Resource) -> None:
        self._resource = resource


def outgoing(span: ReadableSpan) -> Outgoing:
    """`span` as it is sent."""
    return Outgoing(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
