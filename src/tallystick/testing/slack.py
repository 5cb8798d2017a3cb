"""A local server that behaves as Slack's incoming webhooks and its `chat.postMessage` do."""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from tallystick.testing import block_kit

PAGE: Final = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
WEBHOOK: Final = "/services/T0LOCAL/B0LOCAL/localsecretlocalsecret"
API: Final = "/api/chat.postMessage"
GONE: Final = {"action_prohibited": 403, "channel_not_found": 404, "no_service": 404, "channel_is_archived": 410}


@dataclass(frozen=True)
class SlackMessage:
    """What was posted. channel: None for a webhook, which has its own. thread: the `ts` that it answers, or None."""

    ts: str
    channel: str | None
    thread: str | None
    payload: dict[str, Any]

    @property
    def text(self) -> str:
        """What a notification shows; its first line is what fits on a phone."""
        return str(self.payload.get("text", ""))

    @property
    def title(self) -> str:
        """The text of the first header, or the first line of `text`."""
        headers = [block["text"]["text"] for block in self.payload.get("blocks", []) if block["type"] == "header"]
        return headers[0] if headers else self.text.partition("\n")[0]

    @property
    def mentions(self) -> list[str]:
        """Whom it calls, as `!channel` or `@U123`."""
        return block_kit.mentions(self.payload)

    def show(self) -> str:
        """As Slack shows it, in plain text."""
        return block_kit.show(self.payload)


@dataclass(frozen=True)
class _Planned:
    """An answer told in advance. kind: `status`, `hang`, `drip`, or `drop`, which takes the message and then breaks off."""

    kind: str
    status: int = 0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class SlackServer:
    """Incoming webhook and Web API on loopback, with Slack's codes, limits of Block Kit, rate limit, and threads. A context manager.

    `messages` has what was posted, in order; `statuses` what each request was answered, 0 for none. Messages are refused as Slack refuses
    them: 400 `invalid_payload`, `no_text`, `invalid_blocks` and so on; the Web API answers 200 with `{"ok": false, "error": …}`.
    """

    def __init__(
        self,
        *,
        least_s: float = 1.0,
        token: str = "xoxb-local",  # noqa: S107, nobody's
        channels: tuple[str, ...] = ("#alerts",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """least_s: seconds between two messages to one channel, else 429 with Retry-After. channels: those of the Web API."""
        self.messages: list[SlackMessage] = []
        self.statuses: list[int] = []
        self.least_s = least_s
        self.token = token
        self.channels = channels
        self.clock = clock
        self.closing = threading.Event()
        self.gone: str | None = None
        self._planned: deque[_Planned] = deque()
        self._last: dict[str | None, float] = {}
        self._lock = threading.Lock()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def webhook_url(self) -> str:
        return f"{self.url}{WEBHOOK}"

    @property
    def api_url(self) -> str:
        """Of `chat.postMessage`."""
        return f"{self.url}{API}"

    def fail(self, status: int, *, times: int = 1, body: str = "", retry_after: str | None = None) -> None:
        """The next requests are answered with this status, and what they bring isn't kept."""
        headers = (("retry-after", retry_after),) if retry_after is not None else ()
        self._planned.extend([_Planned("status", status, body, headers)] * times)

    def redirect(self, to: str, *, status: int = 302) -> None:
        """The next request is sent elsewhere."""
        self._planned.append(_Planned("status", status, "", (("location", to),)))

    def page(self, *, status: int = 200) -> None:
        """The next request is answered with a page for people, as a proxy or a login does."""
        self._planned.append(_Planned("status", status, PAGE, (("content-type", "text/html"),)))

    def hang(self) -> None:
        """The next request gets no answer until this server closes."""
        self._planned.append(_Planned("hang"))

    def drip(self) -> None:
        """The next request is answered one byte at a time, without end."""
        self._planned.append(_Planned("drip"))

    def drop(self) -> None:
        """The next message is posted, but the connection breaks before the answer."""
        self._planned.append(_Planned("drop"))

    def revoke(self, code: str = "no_service") -> None:
        """From now on the webhook is refused: `no_service`, `channel_is_archived`, `channel_not_found`, `action_prohibited`."""
        assert code in GONE
        self.gone = code

    def show(self) -> str:
        """All messages as Slack shows them, answers in threads indented."""
        shown = []
        for message in self.messages:
            indent = "│   " if message.thread else "│ "
            shown.append("\n".join(f"{indent}{row}".rstrip() for row in message.show().splitlines()))
        return "\n\n".join(shown)

    def planned(self) -> _Planned | None:
        with self._lock:
            return self._planned.popleft() if self._planned else None

    def wait_s(self, channel: str | None) -> float:
        """Seconds until this channel takes another message; 0 counts as one that it takes."""
        with self._lock:
            now, last = self.clock(), self._last.get(channel)
            if last is not None and now - last < self.least_s:
                return self.least_s - (now - last)
            self._last[channel] = now
            return 0.0

    def post(self, channel: str | None, payload: dict[str, Any]) -> SlackMessage:
        with self._lock:
            ts = f"{1_774_000_000 + len(self.messages)}.{len(self.messages):06d}"
            message = SlackMessage(ts, channel, payload.get("thread_ts"), payload)
            self.messages.append(message)
            return message

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    def __init__(self, slack: SlackServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.slack = slack

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that breaks its connection off is a case to be tested, not one to be told of on stderr.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def slack(self) -> SlackServer:
        assert isinstance(self.server, _Http)
        return self.server.slack

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what was answered is in `statuses`."""

    def do_GET(self) -> None:
        self._answer(405, "method_not_allowed")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        plan = self.slack.planned()
        if plan is not None and plan.kind == "status":
            self._answer(plan.status, plan.body, *plan.headers)
        elif plan is not None and plan.kind == "hang":
            self._nothing()
            self.slack.closing.wait()
        elif plan is not None and plan.kind == "drip":
            self._drip()
        else:
            answered = self._web_api(raw) if self.path == API else self._webhook(raw)
            if plan is not None:
                self._nothing()
            else:
                self._answer(*answered)

    def _webhook(self, raw: bytes) -> tuple[Any, ...]:
        if self.path != WEBHOOK:
            return 404, "no_service"
        if self.slack.gone is not None:
            return GONE[self.slack.gone], self.slack.gone
        payload = _json(raw)
        code = block_kit.code(payload)
        if code is not None:
            return 400, code
        wait = self.slack.wait_s(None)
        if wait > 0:
            return 429, "rate_limited", ("retry-after", _seconds(wait))
        self.slack.post(None, payload)
        return 200, "ok"

    def _web_api(self, raw: bytes) -> tuple[Any, ...]:
        told = _json(raw)
        error = self._error(told)
        if error is not None:
            return _api_answer(error=error, errors=block_kit.errors(told["blocks"]) if error == "invalid_blocks" else [])
        wait = self.slack.wait_s(told["channel"])
        if wait > 0:
            return 429, *_api_answer(error="ratelimited")[1:], ("retry-after", _seconds(wait))
        message = self.slack.post(told["channel"], told)
        return _api_answer(channel=message.channel, ts=message.ts, message={"type": "message", "ts": message.ts} | told)

    def _error(self, told: Any) -> str | None:
        if self.headers.get("authorization") != f"Bearer {self.slack.token}":
            return "invalid_auth" if self.headers.get("authorization") else "not_authed"
        if not isinstance(told, dict):
            return "invalid_json"
        if told.get("channel") not in self.slack.channels:
            return "channel_not_found"
        thread = told.get("thread_ts")
        if thread is not None and thread not in {message.ts for message in self.slack.messages if message.thread is None}:
            return "thread_not_found"
        return block_kit.code(told)

    def _answer(self, status: int, body: str, *headers: tuple[str, str]) -> None:
        raw = body.encode()
        self.slack.statuses.append(status)
        self.send_response(status)
        for name, value in ({"content-type": "text/html", "content-length": str(len(raw))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _nothing(self) -> None:
        self.slack.statuses.append(0)
        self.close_connection = True

    def _drip(self) -> None:
        self._nothing()
        self.send_response(200)
        self.send_header("content-length", "1000000")
        self.end_headers()
        while not self.slack.closing.wait(0.02):
            self.wfile.write(b".")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _api_answer(**told: Any) -> tuple[Any, ...]:
    return 200, json.dumps({"ok": "error" not in told} | told), ("content-type", "application/json; charset=utf-8")


def _seconds(wait: float) -> str:
    return str(max(1, -int(-wait // 1)))
