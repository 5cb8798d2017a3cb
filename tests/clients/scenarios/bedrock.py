"""boto3's Bedrock runtime: Converse, and InvokeModel with bodies of Anthropic and Amazon; streamed, tools, failures."""

import json
from typing import Any

import boto3
from botocore.config import Config
from botocore.eventstream import EventStream

ASK = [{"role": "user", "content": [{"text": "a secret question"}]}]
TOOLS = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]}
CLAUDE = "us.anthropic.claude-lab-v1:0"
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "a secret question"}],
    }
)

KNOWN = [
    ("*", "reasoning*", "tokens", "Bedrock doesn't tell how much of the output was reasoning."),
    (
        "*",
        "invoke_cache_written",
        "cache",
        "InvokeModel tells in its headers how much was written to the cache, not for how long: it is taken for 5 minutes.",
    ),
]
"""Run, scenario, check, and why it fails there."""


def _client(provider: str, **more: Any) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=provider,
        aws_access_key_id="sk-of-a-provider",
        aws_secret_access_key="sk-of-a-provider",
        config=Config(**{"retries": {"total_max_attempts": 1}, **more}),
    )


def _plain(answer: Any) -> Any:
    """Without the headers, which have the date."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def _stream(provider: str, model: str) -> Any:
    return _client(provider).converse_stream(modelId=model, messages=ASK)["stream"]


def create(provider: str) -> object:
    return _plain(_client(provider).converse(modelId=CLAUDE, messages=ASK))


def stream(provider: str) -> object:
    found = _stream(provider, CLAUDE)
    return [isinstance(found, EventStream), *found]


def reasoning(provider: str) -> object:
    return _plain(_client(provider).converse(modelId="us.anthropic.claude-lab-reason-v1:0", messages=ASK))


def reasoning_stream(provider: str) -> object:
    return list(_stream(provider, "us.anthropic.claude-lab-reason-v1:0"))


def cached(provider: str) -> object:
    return _plain(_client(provider).converse(modelId="us.anthropic.claude-lab-cached-v1:0", messages=ASK))


def cache_written(provider: str) -> object:
    return _plain(_client(provider).converse(modelId="us.anthropic.claude-lab-cw-v1:0", messages=ASK))


def cache_written_stream(provider: str) -> object:
    return list(_stream(provider, "us.anthropic.claude-lab-cw-v1:0"))


def tools(provider: str) -> object:
    return _plain(_client(provider).converse(modelId="amazon.nova-tools-v1:0", messages=ASK, toolConfig=TOOLS))


def cancelled(provider: str) -> object:
    found = _stream(provider, "us.anthropic.claude-lab-slow-v1:0")
    events = iter(found)
    got = [next(events), next(events), next(events)]
    found.close()
    return got


def abandoned(provider: str) -> object:
    events = iter(_stream(provider, "us.anthropic.claude-lab-slow-v1:0"))
    return [next(events), next(events), next(events)]


def invoke(provider: str) -> object:
    answer = _client(provider).invoke_model(modelId=CLAUDE, body=BODY)
    return [answer["contentType"], json.loads(answer["body"].read())]


def invoke_cached(provider: str) -> object:
    return json.loads(_client(provider).invoke_model(modelId="us.anthropic.claude-lab-cached-v1:0", body=BODY)["body"].read())


def invoke_cache_written(provider: str) -> object:
    return json.loads(_client(provider).invoke_model(modelId="us.anthropic.claude-lab-cw-v1:0", body=BODY)["body"].read())


def invoke_nova(provider: str) -> object:
    body = json.dumps({"messages": ASK})
    return json.loads(_client(provider).invoke_model(modelId="amazon.nova-lab-cached-v1:0", body=body)["body"].read())


def invoke_stream(provider: str) -> object:
    found = _client(provider).invoke_model_with_response_stream(modelId="us.anthropic.claude-lab-cached-v1:0", body=BODY)["body"]
    return [isinstance(found, EventStream), *(json.loads(event["chunk"]["bytes"]) for event in found)]


def invoke_cancelled(provider: str) -> object:
    found = _client(provider).invoke_model_with_response_stream(modelId="us.anthropic.claude-lab-slow-v1:0", body=BODY)["body"]
    events = iter(found)
    got = [json.loads(next(events)["chunk"]["bytes"])["type"] for _ in range(5)]
    found.close()
    return got


def embeddings(provider: str) -> object:
    body = json.dumps({"inputText": "a secret question"})
    return json.loads(_client(provider).invoke_model(modelId="amazon.titan-embed-lab-v2:0", body=body)["body"].read())


def error_429(provider: str) -> object:
    return _client(provider).converse(modelId="us.anthropic.claude-lab-429-v1:0", messages=ASK)


def error_500_stream(provider: str) -> object:
    return _stream(provider, "us.anthropic.claude-lab-500-v1:0")


def retried(provider: str) -> object:
    return _client(provider, retries={"total_max_attempts": 2}).converse(modelId="us.anthropic.claude-lab-429-v1:0", messages=ASK)


def timeout(provider: str) -> object:
    return _client(provider, read_timeout=0.2).converse(modelId="us.anthropic.claude-lab-hang-v1:0", messages=ASK)


def wrong_argument(provider: str) -> object:
    return _client(provider).converse(messages=ASK)
