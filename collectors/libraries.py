"""Which instrumentation is preferred for which client library: data, the best first.

One call should yield one span, so of several instrumentations of a library one is turned on. Spans that a library
emits by itself come first, then the official OpenTelemetry packages, OpenInference, OpenLLMetry. The broken
`opentelemetry-instrumentation-openai-v2` isn't listed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Native:
    """Spans that a library emits by itself, without being wrapped."""

    since: tuple[int, int]
    """First version (major, minor) of the library with them."""
    off_switch: str
    """Environment variable that turns them off with `false`."""


@dataclass(frozen=True, slots=True)
class Library:
    """A client library or framework that calls models."""

    distribution: str
    """Its name on the package index."""
    module: str
    """The module whose import turns its instrumentation on."""
    instrumentations: tuple[str, ...]
    """Distributions with an `opentelemetry_instrumentor` entry point for it, in order of preference."""
    native: Native | None = None


LIBRARIES: Final = (
    Library(
        "openai",
        "openai",
        (
            "opentelemetry-instrumentation-genai-openai",
            "openinference-instrumentation-openai",
            "opentelemetry-instrumentation-openai",
        ),
    ),
    # Its own spans tell 5-minute from 1-hour cache writes and an interrupted answer from a short one; the wrapping
    # instrumentations lose both, and beside the own ones they only add a second span of each call.
    Library(
        "anthropic",
        "anthropic",
        (
            "opentelemetry-instrumentation-genai-anthropic",
            "openinference-instrumentation-anthropic",
            "opentelemetry-instrumentation-anthropic",
        ),
        Native(since=(1, 14), off_switch="ANTHROPIC_OPEN_TELEMETRY"),
    ),
    Library(
        "google-genai",
        "google.genai",
        (
            "opentelemetry-instrumentation-genai-google-genai",
            "opentelemetry-instrumentation-google-genai",
            "openinference-instrumentation-google-genai",
            "opentelemetry-instrumentation-google-generativeai",
        ),
    ),
    Library(
        "google-cloud-aiplatform",
        "vertexai",
        ("opentelemetry-instrumentation-vertexai", "openinference-instrumentation-vertexai"),
    ),
    Library(
        "boto3",
        "botocore",
        (
            "opentelemetry-instrumentation-genai-bedrock",
            "openinference-instrumentation-bedrock",
            "opentelemetry-instrumentation-bedrock",
        ),
    ),
    Library("mistralai", "mistralai", ("openinference-instrumentation-mistralai", "opentelemetry-instrumentation-mistralai")),
    Library("groq", "groq", ("openinference-instrumentation-groq", "opentelemetry-instrumentation-groq")),
    Library("cohere", "cohere", ("opentelemetry-instrumentation-cohere",)),
    Library("ollama", "ollama", ("opentelemetry-instrumentation-ollama",)),
    Library("together", "together", ("opentelemetry-instrumentation-together",)),
    Library("replicate", "replicate", ("opentelemetry-instrumentation-replicate",)),
    Library("litellm", "litellm", ("openinference-instrumentation-litellm",)),
    Library(
        "langchain-core",
        "langchain_core",
        (
            "opentelemetry-instrumentation-genai-langchain",
            "openinference-instrumentation-langchain",
            "opentelemetry-instrumentation-langchain",
        ),
    ),
    Library(
        "llama-index-core",
        "llama_index.core",
        ("openinference-instrumentation-llama-index", "opentelemetry-instrumentation-llamaindex"),
    ),
    Library(
        "openai-agents",
        "agents",
        (
            "opentelemetry-instrumentation-genai-openai-agents",
            "openinference-instrumentation-openai-agents",
            "opentelemetry-instrumentation-openai-agents",
        ),
    ),
    Library("crewai", "crewai", ("openinference-instrumentation-crewai", "opentelemetry-instrumentation-crewai")),
    Library("haystack-ai", "haystack", ("openinference-instrumentation-haystack", "opentelemetry-instrumentation-haystack")),
    Library("dspy", "dspy", ("openinference-instrumentation-dspy",)),
    Library("smolagents", "smolagents", ("openinference-instrumentation-smolagents",)),
)

WITHOUT_CONTENT: Final[Mapping[str, Mapping[str, str]]] = {
    "openinference-instrumentation-": {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"},
    "opentelemetry-instrumentation-": {"TRACELOOP_TRACE_CONTENT": "false"},
}
"""What keeps prompts and completions off the spans, by prefix of the distribution; set unless the environment says
otherwise. The official packages leave content off by default."""
