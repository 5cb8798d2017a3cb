"""A local server that speaks the providers' protocols and knows what each call truly used."""

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from tallystick.testing import anthropic_protocol, openai_protocol
from tallystick.testing.truth import PATHS, USAGE_HEADER, Behaviour, ServedCall, behaviour

Clock = Callable[[], int]
Events = Iterator[tuple[str | None, dict[str, Any] | str]]

SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "cookie"})


class ProviderServer:
    """OpenAI's `/v1/chat/completions`, `/v1/responses`, `/v1/embeddings` and Anthropic's `/v1/messages`, on loopback.

    A context manager. `url` is the base URL for an Anthropic client, `openai_url` for an OpenAI client; any key does.
    `calls` has one `ServedCall` for each request, in order of arrival. What a call uses and whether it fails is asked
    for by the name of its model (`truth.behaviour`) or the header `x-tallystick-usage`. Prompts aren't kept.
    """

    def __init__(self, *, first_token_s: float = 0.0, between_tokens_s: float = 0.0, clock: Clock = time.time_ns) -> None:
        """Seconds before the first and between the other pieces of a streamed answer; a `slow` model adds 0.1 s to each."""
        self.calls: list[ServedCall] = []
        self.first_token_s = first_token_s
        self.between_tokens_s = between_tokens_s
        self.clock = clock
        self.closing = threading.Event()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    def __init__(self, provider: ProviderServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.provider = provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that breaks its connection off is a case to be tested, not one to be told of on stderr.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Events must leave when they are written, not when a segment is full.
    wbufsize = 0
    disable_nagle_algorithm = True

    @property
    def provider(self) -> ProviderServer:
        assert isinstance(self.server, _Http)
        return self.server.provider

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what was served is in `calls`."""

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if path not in PATHS:
            self._error(path, 404)
            return
        try:
            body = json.loads(raw)
            model = str(body["model"])
            wanted = behaviour(path, model, self.headers.get(USAGE_HEADER))
        except (ValueError, KeyError, TypeError):
            self._error(path, 400)
            return
        call = self._call(path, model, bool(body.get("stream")), wanted)
        self.provider.calls.append(call)
        if wanted.failure == "hang":
            self.provider.closing.wait()
            self.close_connection = True
        elif wanted.failure is not None:
            call.status = int(wanted.failure)
            self._end(call)
            self._error(path, call.status)
        elif call.streamed and path != "/v1/embeddings":
            self._stream(call, _events(call, wanted, body), wanted.slow, _tells_usage(path, body))
        else:
            call.status, call.usage_sent = 200, True
            self._end(call)
            self._json(200, _answer(call, wanted, body))

    def _call(self, path: str, model: str, streamed: bool, wanted: Behaviour) -> ServedCall:
        prefix, day = {
            "/v1/chat/completions": ("chatcmpl-", "-2026-07-18"),
            "/v1/responses": ("resp_", "-2026-07-18"),
            "/v1/embeddings": ("emb_", ""),
            "/v1/messages": ("msg_", "-20260718"),
        }[path]
        return ServedCall(
            path=path,
            request_model=model,
            response_model=model + day,
            response_id=prefix + uuid.uuid4().hex[:16],
            streamed=streamed,
            usage=None if wanted.failure else wanted.usage,
            headers={k.lower(): v for k, v in self.headers.items() if k.lower() not in SECRET_HEADERS},
            started_ns=self.provider.clock(),
        )

    def _end(self, call: ServedCall) -> None:
        call.ended_ns = self.provider.clock()

    def _error(self, path: str, status: int) -> None:
        protocol = anthropic_protocol if path == "/v1/messages" else openai_protocol
        self._json(status, protocol.error(status))

    def _json(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self._identify()
        self.end_headers()
        self.wfile.write(raw)

    def _identify(self) -> None:
        self.send_header("request-id", "req_1")
        self.send_header("x-request-id", "req_1")

    def _stream(self, call: ServedCall, events: Events, slow: bool, tells_usage: bool) -> None:
        provider = self.provider
        extra_s = 0.1 if slow else 0.0
        call.status = 200
        try:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self._identify()
            self.end_headers()
            for name, data in events:
                if _is_token(name, data):
                    first = call.first_token_ns is None
                    time.sleep((provider.first_token_s if first else provider.between_tokens_s) + extra_s)
                    if first:
                        call.first_token_ns = provider.clock()
                elif _is_last(name, data):
                    call.usage_sent = tells_usage
                    self._end(call)
                text = data if isinstance(data, str) else json.dumps(data)
                self._chunk((f"event: {name}\n" if name else "") + f"data: {text}\n\n")
            self._chunk("")
        except (BrokenPipeError, ConnectionResetError):
            call.cut_short, call.usage_sent = True, False
            self._end(call)
            self.close_connection = True

    def _chunk(self, text: str) -> None:
        raw = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))


def _answer(call: ServedCall, wanted: Behaviour, body: dict[str, Any]) -> dict[str, Any]:
    if call.path == "/v1/chat/completions":
        return openai_protocol.chat(call, wanted.usage)
    if call.path == "/v1/responses":
        return openai_protocol.response(call, wanted.usage)
    if call.path == "/v1/embeddings":
        inputs = body.get("input")
        return openai_protocol.embeddings(call, wanted.usage, len(inputs) if isinstance(inputs, list) else 1)
    return anthropic_protocol.message(call, wanted.usage)


def _events(call: ServedCall, wanted: Behaviour, body: dict[str, Any]) -> Events:
    if call.path == "/v1/chat/completions":
        return openai_protocol.chat_events(call, wanted.usage, _tells_usage(call.path, body))
    if call.path == "/v1/responses":
        return openai_protocol.response_events(call, wanted.usage)
    return anthropic_protocol.message_events(call, wanted.usage)


def _tells_usage(path: str, body: dict[str, Any]) -> bool:
    """Chat completions tell the usage of a stream only where they are asked to."""
    return path != "/v1/chat/completions" or bool((body.get("stream_options") or {}).get("include_usage"))


def _is_token(name: str | None, data: dict[str, Any] | str) -> bool:
    if isinstance(data, str):
        return False
    if name is None:
        return any(choice["delta"].get("content") for choice in data["choices"])
    return name in ("content_block_delta", "response.output_text.delta")


def _is_last(name: str | None, data: dict[str, Any] | str) -> bool:
    return data == "[DONE]" or name in ("message_stop", "response.completed")
