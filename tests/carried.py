"""A service of its own process, and a server that keeps the headers it is asked with: for what carries a scope."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

DOWN = "http://127.0.0.1:9"
"""The discard port: nothing listens."""


class HeaderServer:
    """Answers everything on loopback, at `/to/URL` with a redirect; `asked` has the headers of each request, names in lowercase."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

            def do_GET(self) -> None:
                headers: dict[str, str] = {}
                for name, value in self.headers.items():
                    # One name twice would be a doubled header.
                    headers[name.lower()] = f"{headers[name.lower()]} AND {value}" if name.lower() in headers else value
                asked.append((self.path, headers))
                self.rfile.read(int(headers.get("content-length") or 0))
                target = unquote(self.path.removeprefix("/to/")) if self.path.startswith("/to/") else ""
                self.send_response(307 if target else 200)
                if target:
                    self.send_header("location", target)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def baggage(self) -> dict[str, str | None]:
        """Path → `baggage` of the requests so far."""
        return {path: headers.get("baggage") for path, headers in self.asked}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def environment(**environ: str) -> dict[str, str]:
    """This process's, without what it has of OpenTelemetry and tallystick, strict, and with no server to export to."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_", "ANTHROPIC_"))}
    return clean | {"TALLYSTICK_URL": DOWN, "TALLYSTICK_STRICT": "1", **environ}


def run(script: str, **environ: str) -> Any:
    """The JSON that `script` prints, in a process of its own. What it says on stderr fails the test, but for the missing server."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = ("spans can't be sent", "spans were lost")
    said = [line for line in done.stderr.splitlines() if not any(about in line for about in told)]
    assert done.returncode == 0, done.stderr
    assert not said, done.stderr
    return json.loads(done.stdout)
