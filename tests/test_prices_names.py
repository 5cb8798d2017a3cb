"""Names of providers and models as spans write them, and the price that they lead to, or none."""

from datetime import UTC, datetime

import pytest

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import load_prices
from tallystick.attribution.prices_names import collapsed, provider_id, service_tier
from tallystick.schema.models import Seen

BOOK = PriceBook()
NOW = datetime(2026, 11, 1, tzinfo=UTC)

# provider, request model, response model, service tier → price key
SEEN = [
    ("openai", "gpt-4o", "", "", "openai/gpt-4o"),
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "default", "openai/gpt-4o-mini"),
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2026-07-18", "", "openai/gpt-4o-mini"),
    ("openai", "gpt-4o", "gpt-4o-2024-05-13", "", "openai/gpt-4o-2024-05-13"),
    ("openai.chat", "gpt-5", "", "", "openai/gpt-5"),
    ("openai.responses", "gpt-5-mini", "", "", "openai/gpt-5-mini"),
    ("openai", "gpt-5.2-20251211", "", "", "openai/gpt-5.2"),
    ("OpenAI", "GPT-4o", "", "", "openai/gpt-4o"),
    ("azure.ai.openai", "my-deployment", "gpt-4o-2024-08-06", "", "azure/gpt-4o,as=openai"),
    ("az.ai.openai", "gpt-4o", "", "", "azure/gpt-4o,as=openai"),
    ("azure_ai_openai", "gpt-4o", "", "", "azure/gpt-4o,as=openai"),
    ("azure-openai.chat", "gpt-4o", "", "", "azure/gpt-4o,as=openai"),
    ("azure", "azure/gpt-4o", "", "", "azure/gpt-4o,as=openai"),
    ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "standard", "anthropic/claude-sonnet-4-5"),
    ("anthropic.messages", "claude-sonnet-4-5-20250929", "", "", "anthropic/claude-sonnet-4-5"),
    ("anthropic", "claude-sonnet-4-5-20250929-cw", "claude-sonnet-4-5-20250929-cw-20260718", "", "anthropic/claude-sonnet-4-5"),
    ("", "claude-sonnet-4-5", "", "", "anthropic/claude-sonnet-4-5"),
    ("", "anthropic/claude-sonnet-4-5", "", "", "anthropic/claude-sonnet-4-5"),
    (
        "aws.bedrock",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    (
        "aws.bedrock",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "claude-sonnet-4-5-20250929",
        "",
        "aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    (
        "aws.bedrock",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    (
        "anthropic",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "claude-sonnet-4-5-20250929",
        "",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    ("", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "", "", "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    (
        "litellm",
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    (
        "litellm",
        "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "", "", "aws/regional.anthropic.claude-3-haiku-20240307-v1:0"),
    ("AWS", "amazon.nova-pro-v1:0", "", "", "aws/amazon.nova-pro-v1:0"),
    ("amazon-bedrock", "us.amazon.nova-pro-v1:0", "", "", "aws/amazon.nova-pro-v1:0"),
    ("aws_bedrock", "meta.llama3-1-70b-instruct-v1:0", "", "", "aws/meta.llama3-1-70b-instruct-v1:0"),
    ("gcp.gemini", "gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("gcp.vertex_ai", "gemini-2.5-pro", "", "", "google/gemini-2.5-pro"),
    ("google.generative-ai", "gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("google.vertex.chat", "gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("vertex_ai", "gemini-2.5-pro", "", "", "google/gemini-2.5-pro"),
    ("google", "models/gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("gcp.gen_ai", "publishers/google/models/gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("vertex_ai", "claude-sonnet-4-5@20250929", "", "", "google/claude-sonnet-4-5"),
    ("gcp.vertex_ai", "publishers/anthropic/models/claude-sonnet-4-5", "", "", "google/claude-sonnet-4-5"),
    ("google_genai", "gemini-2.5-pro-preview-05-06", "", "", "google/gemini-2.5-pro"),
    ("x_ai", "grok-4", "", "", "x-ai/grok-4-0709"),
    ("xai", "grok-4", "", "", "x-ai/grok-4-0709"),
    ("xai.chat", "grok-3-mini", "", "", "x-ai/grok-3-mini"),
    ("mistral_ai", "mistral-large-latest", "", "", "mistral/mistral-large"),
    ("mistral.chat", "mistral-small-latest", "", "", "mistral/mistral-small-latest"),
    ("MistralAI", "mistral-large-2411", "", "", "mistral/mistral-large"),
    ("deepseek", "deepseek-chat", "", "", "deepseek/deepseek-chat"),
    ("deepseek", "deepseek/deepseek-chat", "", "", "deepseek/deepseek-chat"),
    ("", "deepseek-chat", "", "", "deepseek/deepseek-chat"),
    ("", "deepseek-r1-distill-qwen-7b", "", "", None),
    ("", "codestral", "", "", None),
    ("vllm", "deepseek-r1", "", "", None),
    ("ollama", "llama3.1", "", "", None),
    ("openai", "meta-llama/Llama-3.1-8B-Instruct", "", "", None),
    ("openai", "openai/gpt-oss-120b", "", "", None),
    ("openai", "gpt-oss-120b", "", "", "openai/gpt-oss-120b"),
    ("", "openai/gpt-oss-20b", "", "", None),
    ("openai", "mistralai/Devstral-Small-2505", "", "", None),
    ("openai", "moonshotai/Kimi-K2-Thinking", "", "", None),
    ("openai", "deepseek-ai/DeepSeek-R1", "", "", None),
    ("openai", "Qwen/Qwen3-8B", "", "", None),
    ("", "google/gemma-3-27b-it", "", "", None),
    ("groq", "openai/gpt-oss-120b", "", "", "groq/openai/gpt-oss-120b"),
    ("groq", "llama-3.3-70b-versatile", "", "", "groq/llama-3.3-70b-versatile"),
    ("cohere", "command-r-plus", "", "", "cohere/command-r-plus"),
    ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "", "", "together/meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("fireworks_ai", "accounts/fireworks/models/kimi-k2p6", "", "", "fireworks/kimi-k2p6"),
    ("perplexity", "sonar-pro", "", "", "perplexity/sonar-pro"),
    ("openrouter", "openai/gpt-4o", "", "", "openrouter/openai/gpt-4o"),
    ("openrouter", "anthropic/claude-sonnet-4.5", "", "", "openrouter/anthropic/claude-sonnet-4.5"),
    ("litellm", "openrouter/anthropic/claude-sonnet-4.5", "", "", "openrouter/anthropic/claude-sonnet-4.5"),
    ("gateway", "openai/gpt-4o", "", "", "openai/gpt-4o"),
    ("openai", "anthropic/claude-sonnet-4-5", "", "", "anthropic/claude-sonnet-4-5"),
    ("openai", "claude-sonnet-4-5", "", "", "anthropic/claude-sonnet-4-5"),
    ("openai", "gemini-2.5-flash", "", "", "google/gemini-2.5-flash"),
    ("openai", "text-embedding-3-small", "", "", "openai/text-embedding-3-small"),
    ("azure", "text-embedding-3-large", "", "", "azure/text-embedding-3-large"),
    ("openai", "gpt-lab", "gpt-lab-2026-07-18", "", None),
    ("anthropic", "claude-lab", "claude-lab-20260718", "", None),
    ("anthropic", "claude-lab-cw", "", "", None),
    ("openai", "emb-lab", "", "", None),
    ("", "gpt-lab", "", "", None),
    ("", "claude-lab", "", "", None),
    ("litellm", "anthropic/claude-lab", "", "", None),
    ("openai", "gpt-4o-lab", "", "", None),
    ("openai", "gpt-5-lab", "", "", None),
    ("openai", "gpt-4-turbo-lab", "", "", None),
    ("", "gemini-lab", "", "", None),
    ("google", "gemini-lab", "", "", None),
    ("my-gateway", "gpt-4o", "", "", None),
    ("vllm", "gpt-4o", "", "", None),
    ("hosted_vllm", "gpt-4o", "", "", None),
    ("_OTHER", "gpt-4o", "", "", "openai/gpt-4o"),
    ("anthropic", "gpt-4o", "", "", "openai/gpt-4o"),
    ("azure", "gpt-lab", "", "", None),
    ("", "", "", "", None),
    ("openai", "", "", "", None),
    ("openai", "", "gpt-4o", "", "openai/gpt-4o"),
    ("openai", "gpt-5", "", "flex", "openai/gpt-5,service_tier=flex"),
    ("openai", "gpt-5", "", "weird tier,x", "openai/gpt-5,service_tier=weird_tier_x"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:org::abc", "", "", "openai/ft:gpt-4o-mini"),
    ("openai", "o3", "", "", "openai/o3"),
    ("openai", "o1-lab", "", "", None),
    ("groq", "whisper-large-v3", "", "", None),
    ("openai", "whisper-1", "", "", None),
]


@pytest.mark.parametrize(("provider", "request_model", "response_model", "tier", "key"), SEEN)
def test_names_seen_in_the_wild(provider: str, request_model: str, response_model: str, tier: str, key: str | None) -> None:
    assert BOOK.resolve(Seen(provider, request_model, response_model, tier)) == key


@pytest.mark.parametrize("tier", ["", "default", "Standard", "auto", "on_demand", "standard_only"])
def test_base_tiers_are_one_price(tier: str) -> None:
    assert BOOK.resolve(Seen("openai", "gpt-5", "", tier)) == "openai/gpt-5"


@pytest.mark.parametrize("tier", ["a,b=c", "x" * 500, "\x00\n", "flex\t;--"])
def test_a_tier_cannot_forge_a_price_id(tier: str) -> None:
    [price_id] = {id_ for row in BOOK.rows([Seen("openai", "gpt-4o", "", tier)]) for id_ in row.price_ids}
    fields = price_id.split(",")
    assert len(fields) == 6
    assert fields[4] == f"service_tier={service_tier(tier)}"
    assert len(service_tier(tier)) <= 128


def test_every_provider_of_genai_prices_is_known_by_its_id_in_any_spelling() -> None:
    known = {collapsed(price.price_key.partition("/")[0]): price.price_key.partition("/")[0] for price in BOOK.listing(NOW)}
    for id_ in set(known.values()):
        for seen in (id_, id_.upper(), id_.replace("-", "_"), f"{id_}.chat"):
            assert provider_id(seen, known) == id_


def user_book(**prices: object) -> PriceBook:
    return PriceBook(load_prices({"prices": prices}))


def test_the_users_names_for_providers() -> None:
    book = user_book(
        providers={"Acme-Gateway": "openai", "edge": "vllm"}, models=[{"provider": "vllm", "model": "m", "per_request": 0}]
    )
    assert book.resolve(Seen("acme_gateway", "gpt-4o", "", "")) == "openai/gpt-4o"
    assert book.resolve(Seen("edge", "m", "", "")) == "vllm/m,own=0"
    assert BOOK.resolve(Seen("acme_gateway", "gpt-4o", "", "")) is None


@pytest.mark.parametrize(
    ("seen", "key"),
    [
        (Seen("openai", "gpt-5", "", ""), "openai/gpt-5,own=0"),
        (Seen("openai", "gpt-5", "gpt-5-2025-08-07", ""), "openai/gpt-5,own=0"),
        (Seen("litellm", "openai/gpt-5", "", ""), "openai/gpt-5,own=0"),
        (Seen("azure", "gpt-5", "", ""), "azure/gpt-5,as=openai"),
        (Seen("openai", "gpt-5-mini", "", ""), "openai/gpt-5-mini"),
        # a fallback of the gateway: the public model that answered is what is charged
        (Seen("openai", "gpt-5", "gpt-4o", ""), "openai/gpt-4o"),
        # a deployment that only the user prices is meant, whatever answers under it
        (Seen("azure", "prod-chat", "gpt-4o-2024-08-06", ""), "azure/prod-chat,own=1"),
        (Seen("vllm", "acme-7b", "acme-7b-20260718", ""), "vllm/acme-7b-20260718,own=2"),
        (Seen("", "litellm/acme-7b", "", ""), None),
        (Seen("vllm", "my-acme-7b", "", ""), None),
        (Seen("anthropic", "acme-claude", "claude-haiku-4-5", ""), "anthropic/acme-claude,own=2"),
        (Seen("x,y", "acme-7b,z", "", ""), "x_y/acme-7b_z,own=2"),
    ],
)
def test_the_users_models(seen: Seen, key: str | None) -> None:
    book = user_book(
        models=[
            {"provider": "openai", "model": "gpt-5", "per_million_tokens": {"input": 1}},
            {"provider": "azure", "model": "prod-chat", "per_million_tokens": {"input": 1}},
            {"model": "acme-*", "per_million_tokens": {"input": 1}},
        ]
    )
    assert book.resolve(seen) == key


def test_listing_has_every_priced_model_once_and_each_id_is_found_again() -> None:
    book = user_book(models=[{"provider": "openai", "model": "gpt-5", "per_million_tokens": {"input": "0.1"}}])
    listed = list(book.listing(NOW))
    keys = [price.price_key for price in listed]
    assert len(keys) == len(set(keys)) > 1500
    assert "openai/gpt-5,own=0" in keys
    assert "openai/gpt-5" not in keys
    for price in listed:
        for price_id in price.price_ids:
            found = book.find(price_id)
            assert found is not None
            assert price_id in found.price_ids
            assert found.usd_per_million(price_id) == price.usd_per_million(price_id)
    assert book.find("genai-prices@9.9.9,openai,gpt-4o,from=always") is None
    assert book.find("nonsense") is None


def test_a_price_reads_as_its_source_states_it() -> None:
    price_id = BOOK.rows([Seen("anthropic", "claude-haiku-4-5", "", "")])[0].price_ids[0]
    price = BOOK.find(price_id)
    assert price is not None
    rates = {bucket: str(rate) for bucket, rate in price.usd_per_million(price_id).items() if rate}
    assert rates == {
        **{"input": "1", "cache_read": "0.1", "cache_write_5m": "1.25", "cache_write_1h": "2", "output": "5", "reasoning": "5"},
        **{"audio_input": "1", "audio_output": "5", "image_input": "1"},
    }
    assert price.url.startswith("https://")
