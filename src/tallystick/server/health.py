"""Health of a process that serves nothing else: alive, ready, and its figures, on a port of their own."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from tallystick.server.serving import address, listen

_JSON: Final = "application/json"


class Page(NamedTuple):
    """A body and its Content-Type."""

    body: bytes
    content_type: str


class Health:
    """`/healthz`, `/readyz` and `/metrics` on a thread, from `start` to `close`. Nothing of it asks for a key: it shows no content and no tenant.

    ready: "" while the process does its work, else why it doesn't, as `/readyz` answers with 503; called on threads of its own. metrics: what
    `/metrics` shows; without it there is none.
    """

    def __init__(self, host: str, port: int, ready: Callable[[], str], metrics: Callable[[], Page] | None = None) -> None:
        self._host, self._port, self._ready, self._metrics = host, port, ready, metrics
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where it answers, once started."""
        assert self._server is not None
        return f"http://{address(self._host, self._server.server_address[1])}"

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        self._server = _Server(self._host, self._port, self.answer)
        threading.Thread(target=self._server.serve_forever, name="tallystick-health", daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, path: str) -> tuple[int, Page]:
        """HTTP's status and page of a path."""
        match path.partition("?")[0]:
            case "/healthz":
                return 200, _said("alive")
            case "/readyz":
                reason = self._ready()
                return (503, _said(reason)) if reason else (200, _said("ready"))
            case "/metrics" if self._metrics is not None:
                return 200, self._metrics()
            case _:
                return 404, _said("not found")


def _said(status: str) -> Page:
    return Page(json.dumps({"status": status}).encode(), _JSON)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, answer: Callable[[str], tuple[int, Page]]) -> None:
        listening = listen(host, port)
        self.address_family = listening.family
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_address = listening.getsockname()
        self.server_activate()
        self.answer = answer


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        status, page = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds: not a line each."""
