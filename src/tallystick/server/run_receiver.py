"""`tallystick receiver`: OTLP in, Kafka out, until SIGTERM."""

import contextlib
import logging

import uvicorn
from fastapi import FastAPI, Request, Response

from tallystick.ingest.kafka_sink import KafkaSink
from tallystick.ingest.keys import KeyStore
from tallystick.ingest.payload import Limits
from tallystick.ingest.receiver import Receiver, grpc_server
from tallystick.ingest.spool import Spool
from tallystick.server import metrics_api
from tallystick.server.answers import Guard, answer_errors, take_spans
from tallystick.server.auth import Door
from tallystick.server.brokers import brokers_of
from tallystick.server.figures import TimedRequests, show_receiver, show_sink
from tallystick.server.health import Health
from tallystick.server.metrics import Metrics, Role
from tallystick.server.serving import DRAIN_S, address, listen, log_to_stderr, serve
from tallystick.settings import Settings

log = logging.getLogger(__name__)


def run_receiver(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted. Brokers may be away: payloads are kept in the data directory then.

    Raises BadSetting, StoreError, OSError (a port is taken).
    """
    log_to_stderr()
    # It tells of every lost connection; what comes of them the sink says.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    brokers = brokers_of(settings)
    keys = KeyStore(settings.data, settings.keys)
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(contextlib.closing(Spool(settings.data, settings.spool_bytes)))
        keys.load()
        metrics = Metrics(Role.RECEIVER)
        stack.callback(metrics.close)
        sink = KafkaSink(brokers, settings.kafka_received, spool)
        sink.start()
        stack.callback(sink.close)
        door = Door(keys, settings.host)
        receiver = Receiver(sink, door.sender, Limits(settings.max_body_bytes, settings.max_request_spans))
        show_receiver(metrics, receiver)
        show_sink(metrics, sink, spool)
        listening = stack.enter_context(contextlib.closing(listen(settings.host, settings.port)))
        if settings.grpc_port:
            server, _ = grpc_server(receiver, address(settings.host, settings.grpc_port))
            server.start()
            stack.callback(lambda: server.stop(DRAIN_S).wait())
        if not door.open:
            log.info("listening on %s, which isn't a loopback address: every request needs a key", settings.host)
        serve(
            uvicorn.Config(
                receiver_app(receiver, door, Health(settings.host, 0, sink.ready), metrics),
                lifespan="off",
                log_level="warning",
                access_log=False,
            ),
            listening,
            f"http://{address(settings.host, listening.getsockname()[1])}",
        )


def receiver_app(receiver: Receiver, door: Door, health: Health, metrics: Metrics) -> FastAPI:
    """`POST /v1/traces`, as `tallystick up` has it, and the health of the process."""
    app = FastAPI(title="tallystick receiver", description="OTLP to Kafka.", docs_url="/docs", redoc_url=None)
    app.add_middleware(Guard, door=door)
    app.add_middleware(TimedRequests, metrics=metrics)

    # On threads of their own: figures take a while, payloads don't wait.
    @app.get("/healthz", summary="Alive", tags=["operation"], response_class=Response)
    @app.get("/readyz", summary="Accepts spans", tags=["operation"], response_class=Response)
    def operation(request: Request) -> Response:
        status, page = health.answer(request.url.path)
        return Response(page.body, status, media_type=page.content_type)

    app.include_router(metrics_api.router(metrics, door))
    take_spans(app, receiver)
    answer_errors(app)
    return app
