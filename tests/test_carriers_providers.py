"""No model provider is told whom a call is for: not by any client, not where it is asked on this machine, not by mistake."""

import pytest
from carried import HeaderServer, run

from tallystick.testing import ProviderServer

CALLS = """
import asyncio, json, os
import tallystick.auto, tallystick
import anthropic, httpx, httpx2, openai
from opentelemetry import context, propagate, trace

provider, other = os.environ["PROVIDER"], os.environ["OTHER"]
ask = [{"role": "user", "content": "x"}]
def unknown(request):
    # Without what it is known by, as some do for a firewall's sake.
    for name in [name for name in request.headers if name.startswith("x-stainless-") and name != "x-stainless-raw-response"]:
        del request.headers[name]
    request.headers["user-agent"] = "mine/1"
context.attach(propagate.extract({"baggage": "tallystick.team=acme-team,color=red",
                                  "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}))

class Transport(httpx2.HTTPTransport):
    def handle_request(self, request):
        return super().handle_request(request)

def tried(call):
    try:
        call()
    except Exception:
        pass  # HeaderServer's answers are nobody's protocol.

def openai_calls(client):
    client.chat.completions.create(model="gpt-lab", messages=ask)
    list(client.chat.completions.create(model="gpt-lab", messages=ask, stream=True))
    client.chat.completions.with_raw_response.create(model="gpt-lab", messages=ask)
    client.responses.create(model="gpt-lab", input="x")
    client.embeddings.create(model="emb-lab", input="x")

async def async_calls():
    async with openai.AsyncOpenAI(base_url=provider + "/v1", api_key="k") as client:
        await client.chat.completions.create(model="gpt-lab", messages=ask)
        async for _ in await client.chat.completions.create(model="gpt-lab", messages=ask, stream=True):
            pass
    async with anthropic.AsyncAnthropic(base_url=provider, api_key="k") as client:
        await client.messages.create(model="claude-lab", max_tokens=9, messages=ask)

def all_calls():
    openai_calls(openai.OpenAI(base_url=provider + "/v1", api_key="k", max_retries=0))
    openai_calls(openai.OpenAI(base_url=provider + "/v1", api_key="k", max_retries=0,
                               http_client=httpx2.Client(event_hooks={"request": [unknown]})))
    openai_calls(openai.OpenAI(base_url=provider + "/v1", api_key="k", max_retries=0, http_client=httpx2.Client(transport=Transport())))
    tried(lambda: openai.OpenAI(base_url=provider + "/v1", api_key="k", max_retries=1).responses.create(model="gpt-500", input="x"))
    claude = anthropic.Anthropic(base_url=provider, api_key="k", max_retries=0)
    claude.messages.create(model="claude-lab", max_tokens=9, messages=ask)
    with claude.messages.stream(model="claude-lab", max_tokens=9, messages=ask) as stream:
        stream.get_final_message()
    asyncio.run(async_calls())
    # What isn't a model's call, but a request of its client.
    tried(lambda: openai.OpenAI(base_url=other + "/openai", api_key="k", max_retries=0).models.list())
    tried(lambda: anthropic.Anthropic(base_url=other + "/anthropic", api_key="k", max_retries=0).models.list())

def other_calls():
    if not os.environ.get("ALL"):
        return
    import boto3, botocore.config, cohere, google.genai
    from google.genai import types
    from mistralai.client import Mistral
    gemini = google.genai.Client(api_key="k", http_options=types.HttpOptions(base_url=provider))
    gemini.models.generate_content(model="gemini-lab", contents="x")
    list(gemini.models.generate_content_stream(model="gemini-lab", contents="x"))
    asyncio.run(gemini.aio.models.generate_content(model="gemini-lab", contents="x"))
    mistral = Mistral(api_key="k", server_url=os.environ["MISTRAL"])
    mistral.chat.complete(model="mistral-lab", messages=ask)
    list(mistral.chat.stream(model="mistral-lab", messages=ask))
    cohere_client = cohere.ClientV2(api_key="k", base_url=provider)
    cohere_client.chat(model="command-lab", messages=ask)
    list(cohere_client.chat_stream(model="command-lab", messages=ask))
    bedrock = boto3.client("bedrock-runtime", region_name="eu-central-1", endpoint_url=provider, aws_access_key_id="k",
                           aws_secret_access_key="k", config=botocore.config.Config(retries={"max_attempts": 1}))
    bedrock.converse(modelId="nova-lab", messages=[{"role": "user", "content": [{"text": "x"}]}])

with tallystick.scope(customer="acme", feature="acme-feature", tier="acme-tier"):
    all_calls()
    other_calls()
    # That it isn't for want of anything to tell:
    httpx.get(other + "/own")
print(0)
"""


@pytest.mark.parametrize(
    "environ",
    [
        {"TALLYSTICK_PROPAGATE_TO": "*", "ALL": "1"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*", "ANTHROPIC_OPEN_TELEMETRY": "false"},
    ],
    ids=["when everybody is to be told", "without instrumentations"],
)
def test_no_client_tells_anybody(environ: dict[str, str]) -> None:
    with ProviderServer() as provider, HeaderServer() as other:
        run(CALLS, PROVIDER=provider.url, MISTRAL=provider.mistral_url, OTHER=other.url, **environ)
    told = [(call.path, call.headers) for call in provider.calls] + [asked for asked in other.asked if asked[0] != "/own"]
    assert len(provider.calls) == 3 * 5 + 2 + 2 + 3 + (8 if "ALL" in environ else 0)
    assert len(other.asked) == 2 + 1
    assert [path for path, headers in told if "acme" in repr(headers)] == []
    assert "acme" in (other.baggage["/own"] or "")
