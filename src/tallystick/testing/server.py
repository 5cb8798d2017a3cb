"""A local server that speaks the providers' protocols and knows what each call truly used."""

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

from tallystick.testing import (
    anthropic_protocol,
    bedrock_protocol,
    cohere_protocol,
    google_protocol,
    mistral_protocol,
    openai_protocol,
)
from tallystick.testing.faults import BODIES, EVENTS_BEFORE, Fault, fault, spoiled
from tallystick.testing.protocol import Json, Operation
from tallystick.testing.truth import USAGE_HEADER, Behaviour, ServedCall, behaviour

Clock = Callable[[], int]

OPERATIONS: Final = (
    *openai_protocol.OPERATIONS,
    *anthropic_protocol.OPERATIONS,
    *google_protocol.OPERATIONS,
    *bedrock_protocol.OPERATIONS,
    *mistral_protocol.OPERATIONS,
    *cohere_protocol.OPERATIONS,
)
"""All that the server speaks. A request is the first's whose path matches."""

SECRET_HEADERS: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token", "cookie"})


class ProviderServer:
    """OpenAI's `/v1/chat/completions`, `/v1/responses`, `/v1/embeddings`, Anthropic's `/v1/messages`, Google's `generateContent`,
    Bedrock's Converse and InvokeModel, Mistral's and Cohere's chat, with embeddings and streams, on loopback.

    A context manager. `url` is the base URL of the clients, `openai_url` and `mistral_url` of those two; any key does.
    `calls` has one `ServedCall` for each request, in order of arrival. What a call uses and whether it fails is asked
    for by the name of its model (`truth.behaviour`, `faults.Fault`) or the header `x-tallystick-usage`. Prompts aren't kept.
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

    @property
    def mistral_url(self) -> str:
        return f"{self.url}/mistral"

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
        path = unquote(self.path.partition("?")[0])
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        found = next(((one, match) for one in OPERATIONS if (match := one.path.fullmatch(path))), None)
        if found is None:
            self._error(OPERATIONS[0], 404)
            return
        operation, match = found
        try:
            body = json.loads(raw)
            model = match.groupdict().get("model") or str(body["model"])
            wanted = behaviour(operation.usages, model, self.headers.get(USAGE_HEADER))
        except (ValueError, KeyError, TypeError):
            self._error(operation, 400)
            return
        call = self._call(operation, path, model, operation.streamed(body), wanted)
        kind = fault(model)
        again = kind == "again" and all(one.request_model != model for one in self.provider.calls)
        self.provider.calls.append(call)
        if again:
            call.status, call.usage = 429, None
            self._end(call)
            self._json(429, operation.error(429), {"retry-after-ms": "1"})
        elif kind is not None and kind in BODIES:
            call.status = 200
            self._end(call)
            self._answer(200, *BODIES[kind])
        elif wanted.failure == "hang":
            self.provider.closing.wait()
            self.close_connection = True
        elif wanted.failure is not None:
            call.status = int(wanted.failure)
            self._end(call)
            self._error(operation, call.status)
        elif call.streamed:
            self._stream(operation, call, wanted, body, kind)
        else:
            call.status, call.usage_sent = 200, True
            self._end(call)
            self._json(200, spoiled(operation.answer(call, wanted.usage, body), kind), operation.headers(call, wanted.usage))

    def _call(self, operation: Operation, path: str, model: str, streamed: bool, wanted: Behaviour) -> ServedCall:
        return ServedCall(
            path=path,
            request_model=model,
            response_model=model + operation.dated,
            response_id=operation.response_id + uuid.uuid4().hex[:16] if operation.response_id else str(uuid.uuid4()),
            streamed=streamed,
            usage=None if wanted.failure else wanted.usage,
            headers={k.lower(): v for k, v in self.headers.items() if k.lower() not in SECRET_HEADERS},
            started_ns=self.provider.clock(),
        )

    def _end(self, call: ServedCall) -> None:
        call.ended_ns = self.provider.clock()

    def _error(self, operation: Operation, status: int) -> None:
        self._json(status, operation.error(status), operation.error_headers(status))

    def _json(self, status: int, body: Json, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._answer(status, "application/json", json.dumps(body).encode(), headers)

    def _answer(self, status: int, media_type: str, raw: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self._identify()
        self.end_headers()
        self.wfile.write(raw)

    def _identify(self) -> None:
        self.send_header("request-id", "req_1")
        self.send_header("x-request-id", "req_1")

    def _stream(self, operation: Operation, call: ServedCall, wanted: Behaviour, body: Json, kind: Fault | None) -> None:
        assert operation.events is not None
        provider = self.provider
        extra_s = 0.1 if wanted.slow else 0.0
        call.status = 200
        try:
            self.send_response(200)
            self.send_header("content-type", operation.media_type)
            self.send_header("transfer-encoding", "chunked")
            for name, value in operation.headers(call, wanted.usage).items():
                self.send_header(name, value)
            self._identify()
            self.end_headers()
            for number, (event, data) in enumerate(operation.events(call, wanted.usage, body)):
                if number == EVENTS_BEFORE and kind in ("midline", "short", "stall", "event"):
                    self._break_off(operation, call, kind, operation.frame(event, data))
                    return
                if operation.is_token(event, data):
                    first = call.first_token_ns is None
                    time.sleep((provider.first_token_s if first else provider.between_tokens_s) + extra_s)
                    if first:
                        call.first_token_ns = provider.clock()
                if operation.is_last(event, data):
                    call.usage_sent = operation.tells_usage(body)
                    self._end(call)
                self._chunk(operation.frame(event, spoiled(data, kind)))
            self._chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            call.cut_short, call.usage_sent = True, False
            self._end(call)
            self.close_connection = True

    def _break_off(self, operation: Operation, call: ServedCall, kind: Fault, piece: bytes) -> None:
        call.cut_short = True
        self._end(call)
        if kind == "event":
            error = operation.error(500)
            self._chunk(operation.frame("error" if "type" in error else None, error))
            self._chunk(b"")
            return
        if kind == "stall":
            self.provider.closing.wait()
        else:
            self._chunk(piece[: len(piece) // 2])
        if kind == "short":
            self._chunk(b"")
        self.close_connection = True

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
