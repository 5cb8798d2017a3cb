"""No model provider is told whom a call is for: not by any client, not where it is asked on this machine, not by mistake."""

import pytest
from carried import HeaderServer, run

from tallystick.testing import ProviderServer

CALLS = """
import asyncio, json, os
import tallystick.auto, tallystick
import anthropic, boto3, botocore.config, cohere, google.genai, httpx, httpx2, openai
from google.genai import types
from mistralai.client import Mistral
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
    google = google_genai.Client(api_key="k", http_options=types.HttpOptions(base_url=other + "/google"))
    tried(lambda: google.models.generate_content(model="m", contents="x"))
    tried(lambda: asyncio.run(google.aio.models.generate_content(model="m", contents="x")))
    mistral = Mistral(api_key="k", server_url=other + "/mistral")
    tried(lambda: mistral.chat.complete(model="m", messages=ask))
    tried(lambda: cohere.ClientV2(api_key="k", base_url=other + "/cohere").chat(model="m", messages=ask))
    bedrock = boto3.client("bedrock-runtime", region_name="eu-central-1", endpoint_url=other + "/bedrock", aws_access_key_id="k",
                           aws_secret_access_key="k", config=botocore.config.Config(retries={"max_attempts": 1}))
    tried(lambda: bedrock.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "x"}]}]))

google_genai = google.genai
with tallystick.scope(customer="acme", feature="acme-feature", tier="acme-tier"):
    all_calls()
    # That it isn't for want of anything to tell:
    httpx.get(other + "/own")
print(0)
"""


@pytest.mark.parametrize(
    "environ",
    [{"TALLYSTICK_PROPAGATE_TO": "*"}, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*", "ANTHROPIC_OPEN_TELEMETRY": "false"}],
    ids=["when everybody is to be told", "without instrumentations"],
)
def test_no_client_tells_anybody(environ: dict[str, str]) -> None:
    with ProviderServer() as provider, HeaderServer() as other:
        run(CALLS, PROVIDER=provider.url, OTHER=other.url, **environ)
    told = [(call.path, call.headers) for call in provider.calls] + [asked for asked in other.asked if asked[0] != "/own"]
    assert len(provider.calls) >= 3 * 5 + 2 + 2 + 3
    for library in ("openai", "anthropic", "google", "mistral", "cohere", "bedrock"):
        assert any(path.startswith(f"/{library}") for path, _ in other.asked), library
    assert [path for path, headers in told if "acme" in repr(headers)] == []
    assert "acme" in (other.baggage["/own"] or "")
