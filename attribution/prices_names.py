"""Providers, models and service tiers as spans name them, read as the price book knows them. Pure; the tables are data."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

STANDARD_TIERS: Final = frozenset({"", "default", "standard", "standard_only", "auto", "on_demand"})
"""Service tiers that are charged at the base price. `auto` is a wish: what it became is unknown, so the base price is meant."""

NO_PROVIDER: Final = frozenset(
    {"other", "unknown", "none", "null", "litellm", "litellmproxy", "langchain", "llamaindex", "gateway", "vercel", "aigateway"}
    | {"portkey", "helicone", "openaicompatible", "openailike", "customopenai", "custom"}
)
"""Names (collapsed) that say nothing about who bills: frameworks, pass-through gateways, OpenTelemetry's `_OTHER`."""

VAGUE: Final = frozenset({"", "openai", "anthropic"})
"""Providers that a span also names when only their protocol is spoken, to a gateway or another vendor's compatible endpoint."""

ALIASES: Final[Mapping[str, str]] = {
    # OpenTelemetry's well-known values, older ones included
    "awsbedrock": "aws",
    "azaiopenai": "azure",
    "azaiinference": "azure",
    "azureaiopenai": "azure",
    "azureaiinference": "azure",
    "gcpgemini": "google",
    "gcpvertexai": "google",
    "gcpgenai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
    # frameworks, gateways and client libraries
    "amazon": "aws",
    "amazonbedrock": "aws",
    "bedrock": "aws",
    "bedrockconverse": "aws",
    "azureopenai": "azure",
    "azureai": "azure",
    "googlevertex": "google",
    "googlevertexai": "google",
    "googlegenerativeai": "google",
    "googlegenai": "google",
    "googlegla": "google",
    "googleaistudio": "google",
    "gemini": "google",
    "vertex": "google",
    "vertexai": "google",
    "vertexaibeta": "google",
    "textcompletionopenai": "openai",
    "codestral": "mistral",
    "coherechat": "cohere",
    "fireworksai": "fireworks",
    "togetherai": "together",
    "grok": "x-ai",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
    "zhipu": "zhipuai",
    "github": "github-copilot",
}
"""Collapsed name (letters and digits only) → provider id of genai-prices, where collapsing alone doesn't give it."""

OPEN_WEIGHTS: Final = frozenset({"deepseek", "mistral", "moonshotai", "zhipuai", "zai", "minimax", "meta", "cohere"})
"""Vendors whose models run anywhere. Unless a span names one of them as provider, only an exact API name is taken for theirs."""

_HUGGING_FACE_ORGANISATIONS: Final = frozenset({"mistralai", "moonshotai", "minimaxai"})
"""Prefixes that are an organisation in a weights' name (`mistralai/Devstral-Small-2505`), not a provider."""

_VERCEL_SUFFIX: Final = re.compile(
    r"\.(chat|responses|completions?|messages|embeddings?|textembedding|image|speech|transcription|language-?model)$"
)
_DATE_SUFFIX: Final = re.compile(r"[-@](20\d{2})-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])$")
_BEDROCK_ID: Final = re.compile(
    r"^(?:arn:aws[\w-]*:bedrock:\S*/)?(?:[a-z]{2,6}(?:-gov)?\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshotai|nvidia|openai|qwen|writer|zai)\.[a-z][\w.:-]*$"
)


class Reading(NamedTuple):
    """One way to read a model name: whose list to look into, the name to look up there, and whether the provider was stated
    on the span or is inferred from the name."""

    provider: str
    model: str
    stated: bool


def collapsed(name: str) -> str:
    """Letters and digits of a name, lower case: `x_ai`, `x-ai` and `xAI` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def plain(name: str) -> str:
    """A name from a span as it may stand in a price id: lower case, without what separates fields, of bounded length."""
    return re.sub(r"[^a-z0-9_.:@/*-]", "_", name.strip().lower())[:128]


def provider_id(seen: str, known: Mapping[str, str]) -> str:
    """The provider id of a name on a span: an id of the book, '' if the name says nothing, else the name itself, made `plain`.

    `known` maps collapsed names to ids: those of the book and of the user's file.
    """
    name = seen.strip().lower()
    for form in (name, _VERCEL_SUFFIX.sub("", name)):
        short = collapsed(form)
        if found := known.get(short) or ALIASES.get(short):
            return found
        if not short or short in NO_PROVIDER:
            return ""
    return plain(name)


def service_tier(seen: str) -> str:
    """The tier as a price sees it: '' for the base price, else its name, made `plain`."""
    tier = plain(seen)
    return "" if tier in STANDARD_TIERS else tier


def undated(model: str) -> str | None:
    """The model name without its snapshot date (`-2026-07-18`, `-20260718`, `@20260718`), None if it has none."""
    shorter = _DATE_SUFFIX.sub("", model)
    return shorter if shorter != model else None


def is_bedrock_id(model: str) -> bool:
    """Whether a name has the form that only Amazon Bedrock uses: `us.anthropic.claude-…-v1:0`, or the ARN of such a profile."""
    return _BEDROCK_ID.match(model.strip().lower()) is not None


def readings(provider: str, seen: str, known: Mapping[str, str]) -> Iterator[Reading]:
    """How a model name can be read, most trusted first. A prefix never overrules a provider that bills by itself."""
    model = seen.strip().lower()
    vague = provider in VAGUE
    if provider:
        yield Reading(provider, model, stated=True)
    if provider == "google" and "models/" in model:
        yield Reading(provider, model.rpartition("models/")[2], stated=True)
    if vague and is_bedrock_id(model):
        yield Reading("aws", model, stated=True)
    head, slash, rest = model.partition("/")
    if slash and collapsed(head) not in _HUGGING_FACE_ORGANISATIONS:
        named = provider_id(head, known)
        if named and (vague or named == provider):
            yield Reading(named, rest.removeprefix("converse/"), stated=not vague)
