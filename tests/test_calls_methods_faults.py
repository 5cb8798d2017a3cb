"""Google, AWS, Mistral or Cohere going wrong: the application sees exactly what it would have seen without us."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_calls_faults import METERED, TOLD
from test_calls_methods import CLIENTS
from test_collector import DOWN, service

from tallystick.testing import ProviderServer
from tallystick.testing.faults import FAULTS
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

FAULTY = (
    CLIENTS
    + TOLD
    + f"faults = {sorted(FAULTS - {'stall'})}\n"  # that one comes to no end
    + """
import gc, logging
logging.getLogger("cohere").setLevel(100)

for fault in faults:
    tell(f"google {fault}", lambda: gemini.generate_content(model=f"gemini-{fault}", contents="x"))
    tell(f"google stream {fault}", lambda: gemini.generate_content_stream(model=f"gemini-s-{fault}", contents="x"))
    tell(f"google embeddings {fault}", lambda: gemini.embed_content(model=f"emb-{fault}", contents="x"))
    tell(f"bedrock {fault}", lambda: bedrock.converse(modelId=f"nova-{fault}", messages=parts))
    tell(f"bedrock stream {fault}", lambda: iter(bedrock.converse_stream(modelId=f"nova-s-{fault}", messages=parts)["stream"]))
    tell(f"bedrock invoked {fault}", lambda: bedrock.invoke_model(modelId=f"claude-{fault}", body=invoked["body"])["body"].read())
    tell(f"bedrock invoked stream {fault}", lambda: iter(
        bedrock.invoke_model_with_response_stream(modelId=f"claude-s-{fault}", body=invoked["body"])["body"]))
    tell(f"mistral {fault}", lambda: mistral.chat.complete(model=f"mistral-{fault}", messages=ask))
    tell(f"mistral stream {fault}", lambda: mistral.chat.stream(model=f"mistral-s-{fault}", messages=ask))
    tell(f"mistral embeddings {fault}", lambda: mistral.embeddings.create(model=f"emb-{fault}", inputs=["x"]))
    tell(f"cohere {fault}", lambda: command.chat(model=f"command-{fault}", messages=ask))
    tell(f"cohere stream {fault}", lambda: command.chat_stream(model=f"command-s-{fault}", messages=ask))
    tell(f"cohere embeddings {fault}", lambda: command.embed(
        model=f"emb-{fault}", input_type="search_query", embedding_types=["float"], texts=["x"]))
tell("no such region", lambda: boto3.client("bedrock-runtime", region_name="nowhere", endpoint_url="http://127.0.0.1:9",
    aws_access_key_id="k", aws_secret_access_key="k", config=Config(retries={"total_max_attempts": 1})).converse(modelId="m", messages=parts))
tell("another service", lambda: boto3.client("sts", region_name="us-east-1", endpoint_url=base, aws_access_key_id="k",
    aws_secret_access_key="k", config=Config(retries={"total_max_attempts": 1})).get_caller_identity())
tell("bad argument", lambda: bedrock.converse(modelId=7, messages=parts))
tell("unserializable", lambda: command.chat(model="command", messages=[object()]))
tell("no model", lambda: mistral.chat.complete(model=None, messages=ask))

def application_raises(stream):
    for chunk in stream:
        raise LookupError("in the loop")
tell("google application raises", lambda: application_raises(gemini.generate_content_stream(model="gemini-lab", contents="x")))
tell("cohere application raises", lambda: application_raises(command.chat_stream(model="command-lab", messages=ask)))

def read_after_close():
    stream = mistral.chat.stream(model="mistral-lab", messages=ask)
    stream.close()
    return [len(list(stream)), stream.response.is_closed]
tell("read after close", read_after_close)

def twice():
    stream = bedrock.converse_stream(modelId="nova-lab", messages=parts)["stream"]
    return [len(list(stream)), len(list(stream))]
tell("read twice", twice)

async def main():
    mistral = Mistral(api_key="k", server_url=base + "/mistral")
    command = cohere.AsyncClientV2(api_key="k", base_url=base, max_retries=0)
    async def listed(stream):
        return [dumped(item) async for item in stream]
    for fault in faults:
        await atell(f"async google {fault}", lambda: google.aio.models.generate_content(model=f"gemini-{fault}", contents="x"))
        await atell(f"async google stream {fault}", lambda: google.aio.models.generate_content_stream(model=f"gemini-{fault}", contents="x"))
        await atell(f"async mistral {fault}", lambda: mistral.chat.complete_async(model=f"mistral-{fault}", messages=ask))
        await atell(f"async mistral stream {fault}", lambda: mistral.chat.stream_async(model=f"mistral-{fault}", messages=ask))
        await atell(f"async cohere {fault}", lambda: command.chat(model=f"command-{fault}", messages=ask))
        await atell(f"async cohere stream {fault}", lambda: listed(command.chat_stream(model=f"command-{fault}", messages=ask)))
    async def eat():
        return [chunk async for chunk in await google.aio.models.generate_content_stream(model="gemini-hang", contents="x")]
    await atell("async timeout", lambda: asyncio.wait_for(eat(), 0.2))
    await google.aio.aclose()
asyncio.run(main())
print(json.dumps(without_ids(told), default=str))
"""
)

CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f.-]+|\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT|127\.0\.0\.1:\d+| at 0x[0-9a-f]+")
"""Ids, also shortened ones, dates, places."""


def seen(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CHANGING.sub("…", printed.splitlines()[-1]))
    return found


@pytest.fixture(scope="module")
def ran() -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, ReceivedSpan], str]]:
    """What the application saw without and with the collector, the spans by case, and what was logged."""
    with ProviderServer() as one, ProviderServer() as other, SpanReceiver() as receiver, ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(service, FAULTY, one, DOWN)
        done = service(METERED + FAULTY, other, receiver.url)
        spans = {str(span.attributes["tallystick.feature"]): span for span in receiver.spans}
        assert len(spans) == len(receiver.spans), "one span of each call"
        yield seen(waiting.result().stdout), seen(done.stdout), spans, done.stderr


def test_what_the_cases_are_there_for_does_happen(ran: tuple[dict[str, Any], ...]) -> None:
    bare = ran[0]
    assert bare["google garbage"][0][0] in ("JSONDecodeError", "UnknownApiResponseError")
    assert bare["bedrock stream midline"][-1][0] != "end"
    assert bare["mistral stream midline"][-1][0] == "RemoteProtocolError"
    assert bare["cohere stream short"][-1] == "end"


def test_the_application_sees_no_difference(
    ran: tuple[dict[str, Any], dict[str, Any], dict[str, ReceivedSpan], str],
) -> None:
    bare, found, _, logged = ran
    assert found.keys() == bare.keys()
    different = {name: (bare[name][-3:], found[name][-3:]) for name in bare if found[name] != bare[name]}
    assert not different, different
    lines = [line for line in logged.splitlines() if line.startswith("tallystick")]
    assert len(lines) == len(set(lines)), "each thing once"
    assert "secret" not in logged


def test_no_count_that_is_none_is_sent(ran: tuple[dict[str, Any], dict[str, Any], dict[str, ReceivedSpan], str]) -> None:
    for name, span in ran[2].items():
        for key, value in span.attributes.items():
            if key.startswith("gen_ai.usage."):
                assert isinstance(value, int), (name, key, value)
                assert value >= 0, (name, key, value)


def test_what_is_no_call_of_a_model_has_no_span(ran: tuple[dict[str, Any], dict[str, Any], dict[str, ReceivedSpan], str]) -> None:
    assert "another service" not in ran[2]
    assert "no model" not in ran[2]
