"""Requests to services of one's own tell whom they are for, with the real HTTP libraries; no others do."""

from collections.abc import Iterator

import pytest
from carried import HeaderServer, run

CUSTOMER = "tallystick.customer=acme"


@pytest.fixture
def server() -> Iterator[HeaderServer]:
    with HeaderServer() as running:
        yield running


EACH = """
import asyncio, json, os, sys
import aiohttp, httpx, httpx2, requests, urllib3
base = os.environ["BASE"]

def each(mark, headers=None):
    httpx.get(f"{base}/httpx{mark}", headers=headers)
    httpx2.get(f"{base}/httpx2{mark}", headers=headers)
    requests.get(f"{base}/requests{mark}", headers=headers)
    urllib3.request("GET", f"{base}/urllib3{mark}", headers=headers)

    async def others():
        async with httpx.AsyncClient() as client:
            await client.get(f"{base}/httpx-async{mark}", headers=headers)
        async with httpx2.AsyncClient() as client:
            await client.get(f"{base}/httpx2-async{mark}", headers=headers)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/aiohttp{mark}", headers=headers) as answer:
                await answer.read()

    asyncio.run(others())
"""
LIBRARIES = ("httpx", "httpx2", "requests", "urllib3", "httpx-async", "httpx2-async", "aiohttp")


@pytest.mark.parametrize("late", [False, True], ids=["imported before the libraries", "imported after them"])
def test_every_library_carries_the_scope(server: HeaderServer, late: bool) -> None:
    run(
        ("" if late else "import tallystick.auto, tallystick\n")
        + EACH
        + """
import tallystick.auto, tallystick
each("/none")
given = {"Baggage": "color=red,tallystick.feature=byhand", "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}
with tallystick.scope(customer="acme", feature="f", tier="x y"):
    each("/bare")
    each("/given", given)
assert given["Baggage"] == "color=red,tallystick.feature=byhand"
each("/after")
print(0)
""",
        BASE=server.url,
    )
    assert len(server.asked) == 4 * len(LIBRARIES)
    for library in LIBRARIES:
        assert server.baggage[f"/{library}/none"] is None
        assert server.baggage[f"/{library}/after"] is None
        assert server.baggage[f"/{library}/bare"] == f"{CUSTOMER},tallystick.feature=f,tallystick.tag.tier=x%20y"
        # What the application writes by hand stays, and stays once.
        assert server.baggage[f"/{library}/given"] == f"color=red,tallystick.feature=byhand,{CUSTOMER},tallystick.tag.tier=x%20y"
    traces = {headers.get("traceparent") for path, headers in server.asked if path.endswith("/given")}
    assert traces == {"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"}


@pytest.mark.parametrize("setting", ["off", "!127.0.0.1"])
def test_switched_off(server: HeaderServer, setting: str) -> None:
    run(
        "import tallystick.auto, tallystick\n" + EACH + 'with tallystick.scope(customer="acme"): each("")\nprint(0)',
        BASE=server.url,
        TALLYSTICK_PROPAGATE_TO=setting,
    )
    assert set(server.baggage.values()) == {None}
    assert len(server.asked) == len(LIBRARIES)


def test_a_redirect_is_told_only_where_it_leads_home(server: HeaderServer) -> None:
    """The server is one's own by the name `localhost`, and a stranger by 127.0.0.1."""
    run(
        "import tallystick.auto, tallystick\n"
        + EACH
        + """
from urllib.parse import quote
home = base.replace("127.0.0.1", "localhost")
for target, mark in ((base, "stranger"), (home, "home")):
    for start, origin in ((base, "from-stranger"), (home, "from-home")):
        with tallystick.scope(customer="acme"):
            def url(library):
                return f"{start}/to/" + quote(f"{target}/{library}/{origin}/{mark}", safe="")
            httpx.get(url("httpx"), follow_redirects=True)
            httpx2.get(url("httpx2"), follow_redirects=True)
            requests.get(url("requests"))
            urllib3.request("GET", url("urllib3"))
            async def others():
                async with httpx.AsyncClient(follow_redirects=True) as client:
                    await client.get(url("httpx-async"))
                async with httpx2.AsyncClient(follow_redirects=True) as client:
                    await client.get(url("httpx2-async"))
                async with aiohttp.ClientSession() as session:
                    async with session.get(url("aiohttp")) as answer:
                        await answer.read()
            asyncio.run(others())
print(0)
""",
        BASE=server.url,
        TALLYSTICK_PROPAGATE_TO="!127.0.0.1",
    )
    assert len(server.asked) == 2 * 4 * len(LIBRARIES)
    for path, headers in server.asked:
        if not path.startswith("/to/"):
            assert headers.get("baggage") == (CUSTOMER if path.endswith("/home") else None), path
        else:
            assert headers.get("baggage") == (CUSTOMER if headers["host"].startswith("localhost") else None), path


def test_a_proxy_is_asked_for_the_host_behind_it(server: HeaderServer) -> None:
    """By its own address the proxy is private; what is asked for decides."""
    run(
        """
        import tallystick.auto, tallystick
        import os, httpx, requests
        proxy = os.environ["BASE"]
        with tallystick.scope(customer="acme"):
            for host in ("answers.internal", "api.openai.com", "example.com"):
                requests.get(f"http://{host}/requests", proxies={"http": proxy})
                httpx.get(f"http://{host}/httpx", proxy=proxy)
        print(0)
        """,
        BASE=server.url,
        NO_PROXY="",
    )
    assert {path: headers.get("baggage") for path, headers in server.asked} == {
        f"http://{host}/{library}": CUSTOMER if host == "answers.internal" else None
        for host in ("answers.internal", "api.openai.com", "example.com")
        for library in ("requests", "httpx")
    }


MARKS = [
    ("X-Stainless-Lang", "python"),
    ("anthropic-version", "2023-06-01"),
    ("x-goog-api-client", "google-genai-sdk/1.0"),
    ("X-Fern-Language", "Python"),
    ("user-agent", "mistral-client-python/1.9"),
    ("User-Agent", "litellm/1.106"),
]


def test_what_a_model_client_sends_is_told_nothing_wherever_it_goes(server: HeaderServer) -> None:
    run(
        "import tallystick.auto, tallystick\n"
        + EACH
        + f"""
from opentelemetry import trace
with tallystick.scope(customer="acme"):
    for number, mark in enumerate({MARKS!r}):
        each(f"/mark{{number}}", dict([mark]))
    with trace.get_tracer("x").start_as_current_span("chat m", attributes={{"gen_ai.operation.name": "chat"}}):
        each("/call")
    with trace.get_tracer("x").start_as_current_span("execute_tool t", attributes={{"gen_ai.operation.name": "execute_tool"}}):
        each("/tool")
print(0)
""",
        BASE=server.url,
    )
    assert {path: baggage for path, baggage in server.baggage.items() if baggage} == {
        f"/{library}/tool": CUSTOMER for library in LIBRARIES
    }
    assert len(server.asked) == len(LIBRARIES) * (len(MARKS) + 2)


def test_beside_an_instrumentation_that_writes_baggage_there_is_one_header(server: HeaderServer) -> None:
    """As those of OpenTelemetry do: around the client's own functions, put there before us or after."""
    injecting = """
import wrapt
from opentelemetry import baggage, context, propagate
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
def inject(wrapped, _, args, kwargs):
    request = args[0]
    propagate.inject(request.headers)
    # So that the library below isn't traced as well.
    with suppress_http_instrumentation():
        return wrapped(*args, **kwargs)
"""
    wrap = """
import httpx, requests
wrapt.wrap_function_wrapper("httpx", "HTTPTransport.handle_request", inject)
wrapt.wrap_function_wrapper("requests", "Session.send", inject)
"""
    start = "import tallystick.auto, tallystick\n"
    for order in (start + injecting + wrap, injecting + wrap + start):
        server.asked.clear()
        run(
            order
            + """
import os
context.attach(baggage.set_baggage("color", "red"))
with tallystick.scope(customer="acme"):
    httpx.get(os.environ["BASE"] + "/httpx")
    requests.get(os.environ["BASE"] + "/requests")
print(0)
""",
            BASE=server.url,
        )
        assert server.baggage == {"/httpx": f"color=red,{CUSTOMER}", "/requests": f"color=red,{CUSTOMER}"}


def test_what_a_telemetry_exporter_sends_is_for_nobody(server: HeaderServer) -> None:
    run(
        "import tallystick.auto, tallystick\n"
        + EACH
        + """
from opentelemetry.instrumentation.utils import suppress_instrumentation
with tallystick.scope(customer="acme"), suppress_instrumentation():
    each("")
print(0)
""",
        BASE=server.url,
    )
    assert set(server.baggage.values()) == {None}


def test_a_propagator_set_later_is_kept_from_telling_as_well() -> None:
    found = run(
        """
        import json
        import tallystick.auto
        from opentelemetry import baggage, context, propagate
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        propagate.set_global_textmap(W3CBaggagePropagator())
        context.attach(baggage.set_baggage("tallystick.customer", "acme", baggage.set_baggage("color", "red")))
        headers = {}
        propagate.inject(headers)
        print(json.dumps(headers))
        """
    )
    assert found == {"baggage": "color=red"}


def test_kafka_records(server: HeaderServer) -> None:
    """The producers' own `send`, down to where a record would go to a broker."""
    found = run(
        """
        import json
        import kafka.producer.kafka as producing
        seen = []
        def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None):
            seen.append([topic, [[name, item.decode()] for name, item in headers] if headers is not None else None])
        producing.KafkaProducer.send = send
        producing.KafkaProducer.__del__ = lambda self: None
        import tallystick.auto, tallystick
        producer = producing.KafkaProducer.__new__(producing.KafkaProducer)
        mine = [("color", b"red")]
        with tallystick.scope(customer="acme"):
            producer.send("bare", b"x")
            producer.send("given", value=b"x", headers=mine)
            producer.send("by-hand", b"x", headers=[("baggage", tallystick.outgoing_baggage().encode())])
            producer.send("by-position", b"x", None, mine)
        producer.send("outside", b"x")
        assert mine == [("color", b"red")]
        print(json.dumps(seen))
        """
    )
    assert found == [
        ["bare", [["baggage", CUSTOMER]]],
        ["given", [["color", "red"], ["baggage", CUSTOMER]]],
        ["by-hand", [["baggage", CUSTOMER]]],
        ["by-position", [["color", "red"]]],
        ["outside", None],
    ]
