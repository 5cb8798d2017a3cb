"""Servers and workers that fork, and end by signals: each call arrives once, before the process is gone."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

BIN = Path(sys.executable).parent

APP = """
import os
import tallystick.auto, tallystick
from openai import OpenAI

gpt = OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)

def call(path):
    with tallystick.scope(customer=path, user=str(os.getpid())):
        gpt.chat.completions.create(model="gpt-lab", messages=[{"role": "user", "content": "x"}])

if os.environ.get("WARM"):
    call("warm")

def wsgi(environ, start_response):
    call(environ["PATH_INFO"])
    start_response("200 OK", [("content-length", "0")])
    return [b""]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (event := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": event + ".complete"})
        call("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    call(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
"""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def environment(provider: ProviderServer, receiver: SpanReceiver, **more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_"))}
    # A minute: nothing leaves before the process ends.
    late = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "TALLYSTICK_STRICT": "1"}
    return clean | late | {"TALLYSTICK_URL": receiver.url, "PROVIDER": provider.url} | more


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200


Server = subprocess.Popen[str]


def served(
    command: Sequence[str], where: Path, port: int, environ: dict[str, str], stop: Callable[[Server], object] = Server.terminate
) -> str:
    """Starts a server, asks it for `/0` to `/7` four at a time, stops it. What it wrote, once it has ended."""
    (where / "app.py").write_text(APP)
    server = subprocess.Popen(command, cwd=where, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, server.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(get, [f"http://127.0.0.1:{port}/{number}" for number in range(8)]))
        stop(server)
        return server.communicate(timeout=30)[0]
    finally:
        server.kill()
        server.wait()


def seen(receiver: SpanReceiver) -> Counter[object]:
    assert len({(span.trace_id, span.span_id) for span in receiver.spans}) == len(receiver.spans), "none twice"
    return Counter(span.attributes["tallystick.customer"] for span in receiver.spans)


EACH = {f"/{number}": 1 for number in range(8)}


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (["--worker-class=sync", "--workers=2", "app:wsgi"], {}),
        (["--worker-class=gthread", "--threads=3", "--workers=2", "--preload", "app:wsgi"], {"warm": 1}),
        (["--worker-class=uvicorn_worker.UvicornWorker", "--workers=1", "app:asgi"], {"shutdown": 1}),
    ],
    ids=["sync", "gthread, preloaded", "uvicorn worker"],
)
def test_gunicorn(
    options: list[str], more: dict[str, int], provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    port = free_port()
    environ = environment(provider, receiver, **({"WARM": "1"} if "warm" in more else {}))
    said = served([str(BIN / "gunicorn"), f"--bind=127.0.0.1:{port}", *options], tmp_path, port, environ)
    assert seen(receiver) == EACH | more, said
    assert len(provider.calls) == 8 + sum(more.values())
    assert "tallystick:" not in said


def test_uvicorn(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    """Ends by the signal itself, after its graceful shutdown."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"--port={port}", "app:asgi"]
    said = served(command, tmp_path, port, environment(provider, receiver))
    assert seen(receiver) == EACH | {"shutdown": 1}, said
    assert "tallystick:" not in said


def test_uwsgi(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    """Stopped as its manual says it is done gracefully: by a signal it ends in the middle of whatever it does."""
    port = free_port()
    command = [str(BIN / "pyuwsgi"), f"--http-socket=127.0.0.1:{port}", "--master", "--processes=2", "--enable-threads"]
    command += ["--master-fifo=fifo", "--need-app", "--wsgi-file=app.py", "--callable=wsgi", f"--home={sys.prefix}"]
    environ = environment(provider, receiver)
    said = served(command, tmp_path, port, environ, lambda _: (tmp_path / "fifo").write_text("q"))
    assert seen(receiver) == EACH, said
    assert "tallystick:" not in said


CELERY = """
import os
import tallystick.auto, tallystick
from celery import Celery
from openai import OpenAI

app = Celery("jobs", broker="filesystem://")
box = os.environ["BOX"]
app.conf.broker_transport_options = {"data_folder_in": box, "data_folder_out": box, "control_folder": box}
app.conf.worker_hijack_root_logger = False
gpt = OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)

@app.task
def summarise(who):
    with tallystick.scope(customer=who):
        gpt.chat.completions.create(model="gpt-lab", messages=[{"role": "user", "content": "x"}])
"""


@pytest.mark.parametrize(
    ("options", "calls", "waits"),
    [([], 8, False), (["--max-tasks-per-child=3"], 6, True)],
    ids=["warm shutdown", "max-tasks-per-child"],
)
def test_celery(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path, options: list[str], calls: int, waits: bool
) -> None:
    """The children of its pool end by `os._exit`, at the end of a warm shutdown and after each `max-tasks-per-child`.

    The second waits for what children send that are replaced: those that took their places Celery may kill once the last task is done.
    """
    (tmp_path / "jobs.py").write_text(CELERY)
    (tmp_path / "box").mkdir()
    environ = environment(provider, receiver, BOX=str(tmp_path / "box"))
    ask = f"import jobs\n[jobs.summarise.delay(f'/{{number}}') for number in range({calls})]"
    subprocess.run([sys.executable, "-c", ask], env=environ, cwd=tmp_path, check=True, timeout=60)
    command = [sys.executable, "-m", "celery", "--app=jobs", "worker", "--pool=prefork", "--concurrency=2", "--without-mingle"]
    command += [*options, "--without-gossip", "--without-heartbeat", "--loglevel=INFO"]
    worker = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 40
        while len(receiver.spans if waits else provider.calls) < calls and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.terminate()
        said = worker.communicate(timeout=30)[0]
    finally:
        worker.kill()
        worker.wait()
    assert len(provider.calls) == calls, said
    assert seen(receiver) == {f"/{number}": 1 for number in range(calls)}, said
    assert "tallystick:" not in said
