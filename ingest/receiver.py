"""OTLP in: `POST /v1/traces`, and the same service over gRPC."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent import futures
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from fastapi import APIRouter, Request, Response
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tallystick.ingest.committer import Full
from tallystick.ingest.errors import PoisonBatch, StoreError
from tallystick.ingest.payload import JSON, PROTOBUF, Limits, Payload, PayloadError, decode
from tallystick.ingest.writer import Item, Outcome

ARRIVING_BYTES: Final = 192 << 20
"""Bytes of bodies that may be on their way in at one time; beyond it senders are asked to try again."""

RETRY_AFTER_S: Final = 1
"""What a sender is asked to wait when nothing can be stored now."""

_POISON: Final = PayloadError(
    400, "malformed", "The payload can't be decoded.", "Nothing of it was kept. Check the exporter's protocol."
)


@dataclass(frozen=True)
class Sender:
    """Who sends: spans go to `tenant`, unless an operator names another in them."""

    tenant: str
    operator: bool


class Authenticate(Protocol):
    """Says who a request comes from by its Authorization header; raises PayloadError (401, 403) if it mayn't."""

    def __call__(self, authorization: str | None) -> Sender: ...


class Sink(Protocol):
    """Where accepted requests go: into the ledger, or to Kafka."""

    def check(self, data: bytes, limits: Limits) -> Payload:
        """What a request's protobuf has to pass first: all of it where it is acknowledged before the engine has read it. Raises PayloadError."""
        ...

    def submit(self, item: Item) -> "futures.Future[Outcome]":
        """The outcome comes once the item can't be lost any more; StoreUnavailable if it could be, PoisonBatch if it never can be stored.

        Raises Full.
        """
        ...


class Receiver:
    """Checks requests and hands them on. clock: nanoseconds since 1970."""

    def __init__(self, sink: Sink, authenticate: Authenticate, limits: Limits, clock: Callable[[], int] = time.time_ns) -> None:
        self._sink, self._authenticate, self._limits, self._clock = sink, authenticate, limits, clock
        self._arriving = 0
        self.refused: Counter[str] = Counter()
        """Requests that were refused whole, by error code."""

    def accept(self, payload: Payload, sender: Sender) -> "futures.Future[Outcome] | None":
        """Queue a payload; None where nothing is left of it. Raises Full."""
        if not payload.spans:
            return None
        return self._sink.submit(
            Item(payload.data, payload.spans, sender.tenant, self._clock(), sender.operator, accounts=payload.accounts)
        )

    async def read(self, request: Request) -> tuple[Payload, Sender]:
        """Ask who sends, then take the body as it comes, given up as soon as it is too large. Raises PayloadError, Full."""
        headers = request.headers
        size = 0
        parts = []
        try:
            sender = self._authenticate(headers.get("authorization"))
            async for part in request.stream():
                size += len(part)
                self._arriving += len(part)
                if size > self._limits.decoded_bytes:
                    raise PayloadError(
                        413, "too_large", f"The body is over {self._limits.decoded_bytes} bytes.", "Send smaller batches."
                    )
                if self._arriving > ARRIVING_BYTES:
                    raise Full(f"{self._arriving >> 20} MiB are arriving at once")
                parts.append(part)
            content_type, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
            return decode(b"".join(parts), content_type, encoding, self._limits, self._sink.check), sender
        except PayloadError as error:
            self.refused[error.code] += 1
            raise
        finally:
            self._arriving -= size

    def check_bytes(self, body: bytes, authorization: str | None) -> tuple[Payload, Sender]:
        """The same for gRPC, whose messages come decompressed. Raises PayloadError."""
        try:
            sender = self._authenticate(authorization)
            return self._sink.check(body, self._limits), sender
        except PayloadError as error:
            self.refused[error.code] += 1
            raise

    @property
    def limits(self) -> Limits:
        return self._limits


def answer(payload: Payload, outcome: Outcome | None) -> ExportTraceServiceResponse:
    """OTLP's answer: empty, or how many spans were rejected and why."""
    rejected = Counter(payload.rejected)
    if outcome:
        rejected.update(outcome.rejected)
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected.total()
        response.partial_success.error_message = "; ".join(
            f"{count} spans: {reason}" for reason, count in sorted(rejected.items())
        )
    return response


def router(receiver: Receiver) -> APIRouter:
    """`POST /v1/traces`. Errors are raised as PayloadError and StoreError; the application answers them."""
    routes = APIRouter()

    @routes.post(
        "/v1/traces",
        summary="OTLP/HTTP",
        description="An ExportTraceServiceRequest as protobuf or JSON, gzip or plain. Answered with 200 once its model calls are on disk.",
        response_class=Response,
        responses={
            200: {
                "description": "An ExportTraceServiceResponse, written as the request was: how many spans were rejected, and why.",
                "content": {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}, JSON: {"schema": {"type": "object"}}},
            },
            400: {"description": "The payload can't be decoded."},
            413: {"description": "The payload is too large: send smaller batches."},
            415: {"description": "The payload is neither OTLP's protobuf nor its JSON, or is compressed otherwise than by gzip."},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}, JSON: {"schema": {"type": "object"}}},
            }
        },
        tags=["ingest"],
    )
    async def traces(request: Request) -> Response:
        payload, sender = await receiver.read(request)
        outcome = await _settled(receiver, payload, sender)
        response = answer(payload, outcome)
        if request.headers.get("content-type", "").startswith(JSON):
            return Response(json.dumps(json_format.MessageToDict(response)), media_type=JSON)
        return Response(response.SerializeToString(), media_type=PROTOBUF)

    return routes


async def _settled(receiver: Receiver, payload: Payload, sender: Sender) -> Outcome | None:
    future = receiver.accept(payload, sender)
    if future is None:
        return None
    waiting: Awaitable[Outcome] = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except PoisonBatch as error:
        raise _POISON from error


_GRPC_STATUS: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
}


def grpc_server(receiver: Receiver, address: str) -> tuple[grpc.Server, int]:
    """A server of OTLP's TraceService on `address`, not started yet, and its port. Raises OSError where the port is taken."""

    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        try:
            payload, sender = receiver.check_bytes(body, metadata.get("authorization"))
            future = receiver.accept(payload, sender)
            return answer(payload, future.result() if future else None).SerializeToString()
        except PayloadError as error:
            context.abort(_GRPC_STATUS.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), f"{error.message} {error.hint}")
        except PoisonBatch:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, _POISON.message)
        except Full as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except StoreError:
            context.abort(grpc.StatusCode.UNAVAILABLE, "nothing can be stored now; try again")
        raise AssertionError("abort raises")

    service = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32, thread_name_prefix="otlp-grpc"),
        handlers=[service],
        options=[("grpc.max_receive_message_length", receiver.limits.decoded_bytes), ("grpc.so_reuseport", 0)],
        compression=grpc.Compression.NoCompression,
    )
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address} can't be listened on") from error
    if not port:
        raise OSError(f"{address} can't be listened on")
    return server, port
