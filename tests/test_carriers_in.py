"""A request's baggage is the scope of its handling, with the real frameworks; and of nothing before, beside or after it."""

import pytest
from carried import run

BAGGAGE = "color=red,tallystick.customer=acm%C3%A9;secret=1,tallystick.tag.tier=x%20y,tallystick.tenant=other,=,;,garbage"
CAME = {"tallystick.customer": "acmé", "tallystick.tag.tier": "x y"}

START = f"""
import json, logging
import tallystick.auto, tallystick
from tallystick.collectors.scope import attribution
# OpenTelemetry's own propagator tells of what it can't read.
logging.getLogger("opentelemetry.baggage.propagation").disabled = True
headers = {{"baggage": {BAGGAGE!r}}}
seen = {{}}
"""

STARLETTE = """
import fastapi, starlette.applications, starlette.routing, threading, time
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient

async def plain(request):
    with tallystick.scope(feature="mine", tier="code"):
        return JSONResponse([attribution(), dict(request.headers)["baggage"] if "baggage" in request.headers else None])

async def streamed(request):
    async def parts():
        for _ in range(2):
            yield json.dumps(attribution()) + "|"
    def more():
        for _ in range(2):
            yield json.dumps(attribution()) + "|"
    body = parts() if "async" in str(request.url) else more()
    return StreamingResponse(body, background=BackgroundTask(lambda: seen.setdefault("background", attribution())))

def in_a_thread(request):
    return JSONResponse(attribution())

async def failing(request):
    raise KeyError("the application's own")

async def socket(websocket):
    await websocket.accept()
    await websocket.send_json(attribution())
    await websocket.close()

class Middleware(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        seen["middleware"] = attribution()
        return await call_next(request)

routes = [
    starlette.routing.Route("/plain", plain), starlette.routing.Route("/streamed/{kind}", streamed),
    starlette.routing.Route("/thread", in_a_thread), starlette.routing.Route("/failing", failing),
    starlette.routing.WebSocketRoute("/socket", socket),
]
for kind in (starlette.applications.Starlette, fastapi.FastAPI):
    app = kind(routes=routes + [starlette.routing.Mount("/below", starlette.applications.Starlette(routes=routes))])
    app.add_middleware(Middleware)
    if INSTRUMENT:
        instrument(app)
    seen.clear()
    with TestClient(app, raise_server_exceptions=False) as client:
        result = {
            "before": client.get("/thread").json(),
            "plain": client.get("/plain", headers=headers).json()[0],
            "mounted": client.get("/below/thread", headers=headers).json(),
            "thread": client.get("/thread", headers=headers).json(),
            "failing": client.get("/failing", headers=headers).status_code,
            "streams": [json.loads(part) for kind in ("async", "sync")
                        for part in client.get(f"/streamed/{kind}", headers=headers).text.split("|")[:-1]],
            "seen": dict(seen),
        }
        with client.websocket_connect("/socket", headers=headers) as websocket:
            result["socket"] = websocket.receive_json()
        result["after"] = client.get("/thread").json()
    results.append(result)
assert attribution() == {}
print(json.dumps(results))
"""

INSTRUMENT = """
from opentelemetry import context, propagate
class Extracting:
    # As the instrumentations of web frameworks do: a context made from the headers alone, in place of the current one.
    def __init__(self, app):
        self.app = app
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        carrier = {name.decode(): value.decode() for name, value in scope["headers"]}
        token = context.attach(propagate.extract(carrier))
        try:
            await self.app(scope, receive, send)
        finally:
            context.detach(token)
def instrument(app):
    app.add_middleware(Extracting)
"""


@pytest.mark.parametrize("instrumented", [False, True], ids=["alone", "with an instrumentation that reads baggage"])
def test_starlette_and_fastapi(instrumented: bool) -> None:
    results = run(START + (INSTRUMENT if instrumented else "") + f"INSTRUMENT = {instrumented}\nresults = []\n" + STARLETTE)
    assert len(results) == 2
    for result in results:
        assert result == {
            "before": {},
            "plain": CAME | {"tallystick.feature": "mine", "tallystick.tag.tier": "code"},
            "mounted": CAME,
            "thread": CAME,
            "failing": 500,
            "streams": [CAME] * 4,
            "seen": {"middleware": CAME, "background": CAME},
            "socket": CAME,
            "after": {},
        }


def test_two_requests_at_once_do_not_mix_in_a_real_server() -> None:
    found = run(
        START
        + """
import asyncio, httpx, socket, threading, uvicorn, fastapi
app = fastapi.FastAPI()
@app.get("/{number}")
async def slow(number: int):
    before = attribution()
    await asyncio.sleep(0.02)
    return [before, attribution()]

listening = socket.socket()
listening.bind(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
with tallystick.scope(customer="of the thread that serves", feature="server"):
    thread.start()

async def main():
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
        async def ask(number):
            given = {"baggage": f"tallystick.customer=c{number}"} if number % 2 else {}
            return (await client.get(f"/{number}", headers=given)).json()
        return await asyncio.gather(*(ask(number) for number in range(20)))

print(json.dumps(asyncio.run(main())))
server.should_exit = True
thread.join()
"""
    )
    assert found == [[{"tallystick.customer": f"c{number}"} if number % 2 else {}] * 2 for number in range(20)]


def test_flask_and_other_wsgi() -> None:
    found = run(
        START
        + """
import flask
from werkzeug.test import Client
app = flask.Flask("app")
app.logger.disabled = True

@app.get("/plain")
def plain():
    with tallystick.scope(feature="mine"):
        return attribution()

@app.get("/streamed")
def streamed():
    def parts():
        try:
            for _ in range(2):
                yield json.dumps(attribution()) + "|"
        finally:
            seen["closed"] = attribution()
    return flask.Response(parts())

@app.get("/failing")
def failing():
    raise KeyError("the application's own")

@app.get("/file")
def file():
    return flask.send_file(__import__("io").BytesIO(b"content"), "text/plain")

def other(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(attribution()).encode()]

client = app.test_client()
answered = app.wsgi_app(client.open("/plain").request.environ, lambda *_: None)
result = {
    "kind": type(answered).__name__,
    "before": client.get("/plain").json,
    "plain": client.get("/plain", headers=headers).json,
    "streams": [json.loads(part) for part in client.get("/streamed", headers=headers).text.split("|")[:-1]],
    "closed": seen.pop("closed"),
    "failing": client.get("/failing", headers=headers).status_code,
    "file": client.get("/file", headers=headers).text,
    "other": json.loads(Client(tallystick.wsgi(other)).get("/", headers=headers).text),
}
iterator = client.get("/streamed", headers=headers, buffered=False)
next(iter(iterator.response))
result["between"] = attribution()
iterator.close()
result["abandoned"] = seen["closed"]
result["after"] = client.get("/plain").json
print(json.dumps(result))
"""
    )
    mine = {"tallystick.feature": "mine"}
    assert found == {
        "kind": "ClosingIterator",
        "before": mine,
        "plain": CAME | mine,
        "streams": [CAME, CAME],
        "closed": CAME,
        "failing": 500,
        "file": "content",
        "other": CAME,
        "between": {},
        "abandoned": CAME,
        "after": mine,
    }


def test_django() -> None:
    found = run(
        START
        + """
import asyncio, sys, types
import django, django.conf, django.http, django.urls

def plain(request):
    with tallystick.scope(feature="mine"):
        return django.http.JsonResponse(attribution())

def streamed(request):
    return django.http.StreamingHttpResponse(json.dumps(attribution()) + "|" for _ in range(2))

async def later(request):
    async def parts():
        for _ in range(2):
            yield json.dumps(attribution()) + "|"
    return django.http.StreamingHttpResponse(parts())

urls = types.ModuleType("urls")
urls.urlpatterns = [django.urls.path(view.__name__, view) for view in (plain, streamed, later)]
sys.modules["urls"] = urls
django.conf.settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x", ALLOWED_HOSTS=["*"])
django.setup()
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from werkzeug.test import Client
import httpx
client = Client(get_wsgi_application())
result = {
    "wsgi": client.get("/plain", headers=headers).json,
    "streams": [json.loads(part) for part in client.get("/streamed", headers=headers).text.split("|")[:-1]],
    "after": client.get("/plain").json,
}

async def main():
    transport = httpx.ASGITransport(get_asgi_application())
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        result["asgi"] = (await client.get("/plain", headers=headers)).json()
        result["later"] = [json.loads(part) for part in (await client.get("/later", headers=headers)).text.split("|")[:-1]]
        result["none"] = (await client.get("/plain")).json()

asyncio.run(main())
print(json.dumps(result))
"""
    )
    mine = {"tallystick.feature": "mine"}
    assert found == {
        "wsgi": CAME | mine, "streams": [CAME, CAME], "after": mine, "asgi": CAME | mine, "later": [CAME, CAME], "none": mine,
    }  # fmt: skip


def test_aiohttp_and_other_asgi() -> None:
    found = run(
        START
        + """
import asyncio, aiohttp, httpx
from aiohttp import web

async def plain(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(json.dumps(attribution()).encode())
    return answer

async def other(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(attribution()).encode()})

async def main():
    app = web.Application()
    app.router.add_get("/", plain)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        for given in (headers, {}, {"baggage": b"tallystick.customer=\\xff\\xfe".decode("latin-1")}):
            async with session.get(f"http://127.0.0.1:{port}/", headers=given) as answer:
                yield json.loads(await answer.text())
    await runner.cleanup()
    transport = httpx.ASGITransport(tallystick.asgi(other))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield (await client.get("/", headers=headers)).json()

async def collect():
    return [item async for item in main()]

print(json.dumps(asyncio.run(collect())))
"""
    )
    assert found == [CAME, {}, {"tallystick.customer": "ÿþ"}, CAME]


@pytest.mark.parametrize(
    ("trusted", "counts"),
    [("all", True), ("none", False), ("10.0.0.0/8", False), ("10.0.0.0/8, 127.0.0.1", True)],
)
def test_whose_baggage_counts(trusted: str, counts: bool) -> None:
    found = run(
        START
        + """
import httpx, asyncio, flask, fastapi
from opentelemetry import propagate
app = fastapi.FastAPI()
@app.get("/")
async def plain():
    return attribution()
other = flask.Flask("other")
@other.get("/")
def plain():
    return attribution()

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return (await client.get("/", headers=headers)).json()

extracted = attribution(propagate.extract({"baggage": "tallystick.customer=acm%C3%A9,tallystick.tag.tier=x%20y"}))
print(json.dumps([asyncio.run(main()), other.test_client().get("/", headers=headers).json, extracted]))
""",
        TALLYSTICK_TRUST_BAGGAGE=trusted,
    )
    # Where not everybody is trusted, only a hook that knows the sender reads it.
    assert found == [CAME if counts else {}, CAME if counts else {}, CAME if trusted == "all" else {}]
