"""What a request or a message that leaves this process tells of whom it is for."""

from collections.abc import Iterable
from typing import Final

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import Span

from tallystick.collectors.calls.call import CURRENT, is_call
from tallystick.collectors.carriers.baggage import NAME, merge, text
from tallystick.collectors.carriers.destinations import Destinations
from tallystick.collectors.scope import attribution

MODEL_CLIENT_HEADERS: Final = ("x-stainless-", "anthropic-", "x-goog-api-", "x-fern-", "amz-sdk-")
"""Beginnings of headers that the client libraries of models put on each request: those made by Stainless (OpenAI, Anthropic,
Groq, Together, …), by Google, by Fern (Cohere, ElevenLabs, …), and boto3."""

MODEL_CLIENT_AGENTS: Final = (
    "openai/", "asyncopenai/", "anthropic/", "asyncanthropic/", "google-genai-sdk/", "mistral-client-python/", "cohere/",
    "speakeasy-sdk/", "litellm/", "ollama-python/", "boto3/", "botocore/", "aiobotocore/", "unknown/none; hf_hub", "groq/",
)  # fmt: skip
"""Beginnings of their `User-Agent`, lowercase."""


class Outgoing:
    """Decides for each request. `destinations` is replaced when the collector starts."""

    def __init__(self) -> None:
        self.destinations = Destinations(private=False)

    def to_host(self, host: str, headers: Iterable[tuple[str | bytes, str | bytes]]) -> str | None:
        """The `baggage` header of a request to `host` (without port) with these headers; None leaves the request as it is."""
        # A call's own requests come from within it, whatever their headers say.
        if not self.destinations.include(host) or CURRENT.get() is not None or not (found := attribution()):
            return None
        written: list[str] = []
        for name, value in headers:
            lower = text(name).lower()
            if lower.startswith(MODEL_CLIENT_HEADERS):
                return None
            if lower == "user-agent" and text(value).lower().startswith(MODEL_CLIENT_AGENTS):
                return None
            if lower == NAME:
                written.append(text(value))
        if not is_instrumentation_enabled() or _within_a_model_call():
            return None
        return merge(",".join(written), found)

    def in_message(self, written: str) -> str | None:
        """The `baggage` of a message to a queue, which has `written` there; None leaves it as it is."""
        if not self.destinations.anyone or not (found := attribution()) or not is_instrumentation_enabled():
            return None
        return merge(written, found)


def _within_a_model_call() -> bool:
    """Not within an agent's or a tool's span: what these call may be one's own."""
    span = trace.get_current_span()
    return isinstance(span, Span) and is_call(span)


OUTGOING: Final = Outgoing()
