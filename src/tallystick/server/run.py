"""`tallystick up`: everything in one process, until SIGTERM."""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn

from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.ingest.committer import Committer, Counting
from tallystick.ingest.keys import KeyStore
from tallystick.ingest.migrate import migrate
from tallystick.ingest.payload import Limits
from tallystick.ingest.receiver import Receiver, Sink, grpc_server
from tallystick.ingest.store import hold
from tallystick.ingest.turns import open_turns
from tallystick.ingest.writer import Writer
from tallystick.server.alerts import Alerts
from tallystick.server.app import create_app
from tallystick.server.auth import Door
from tallystick.server.corrections import Desk, open_corrections
from tallystick.server.figures import TimedWriter, show_alerts, show_committer, show_receiver, show_store
from tallystick.server.measured_prices import PresentBook, PricedWriter
from tallystick.server.metrics import Metrics, Role
from tallystick.server.probe_schedules import ProbeSchedules
from tallystick.server.serving import DRAIN_S, address, listen, log_to_stderr, serve
from tallystick.server.stores import open_ledger
from tallystick.server.waiting import waiting
from tallystick.settings import Settings

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted. Raises StoreError, PriceFileError, OSError (a port is taken)."""
    log_to_stderr()
    # The engine moves into its directory.
    settings = replace(settings, data=settings.data.absolute(), config=settings.config and settings.config.absolute())
    prices = load_prices_file(settings.config) if settings.config else UserPrices()
    keys = KeyStore(settings.data, settings.keys)
    with contextlib.ExitStack() as stack:
        if settings.clickhouse is not None:
            # The engine isn't there to hold what else lies in the directory.
            stack.enter_context(hold(settings.data))
        store = stack.enter_context(contextlib.closing(open_ledger(settings)))
        keys.load()
        for name in migrate(store, settings.retention_days):
            log.info("applied migration %s", name)
        book = PresentBook(store, prices)
        turns = open_turns(store)
        desk = Desk(open_corrections(store, turns), book.book)
        metrics = Metrics(Role.UP)
        stack.callback(metrics.close)
        sink: Sink
        committer: Counting
        ready: Callable[[], str] = _always
        if settings.kafka:
            from tallystick.server.through_kafka import through_kafka

            committer = through = stack.enter_context(through_kafka(settings, store, book, turns, metrics))
            sink, ready = through.sink, through.ready
        else:
            committer = sink = Committer(
                lambda: TimedWriter(PricedWriter(Writer(store, book.book(), turns), book), metrics),
                window_s=settings.batch_window_ms / 1000,
                max_spans=settings.batch_max_spans,
            )
            sink.start()
            stack.callback(sink.close)
            show_committer(metrics, sink)
        door = Door(keys, settings.host)
        receiver = Receiver(sink, door.sender, Limits(settings.max_body_bytes, settings.max_request_spans))
        listening = stack.enter_context(contextlib.closing(listen(settings.host, settings.port)))
        if settings.grpc_port:
            server, _ = grpc_server(receiver, address(settings.host, settings.grpc_port))
            server.start()
            stack.callback(lambda: server.stop(DRAIN_S).wait())
        url = f"http://{address(settings.host, listening.getsockname()[1])}"
        stack.enter_context(_named(settings.data, url))
        # One process holds a data directory: started again after a crash, it is the same holder, and needn't wait for its own lease.
        holder = f"{socket.gethostname()}:{settings.data}"
        alerts = Alerts(store, settings, url, holder=holder)
        alerts.start()
        stack.callback(alerts.stop)
        schedules = ProbeSchedules(settings, url, alerts.ledger.leases, holder)
        schedules.start()
        stack.callback(schedules.stop)
        show_receiver(metrics, receiver)
        show_alerts(metrics, lambda: alerts.scheduler.pace, alerts.ledger)
        show_store(metrics, store)
        if not door.open:
            log.info("listening on %s, which isn't a loopback address: every request needs a key", settings.host)
        serve(
            uvicorn.Config(
                create_app(
                    store,
                    committer,
                    receiver,
                    door,
                    alerts,
                    book=book,
                    desk=desk,
                    config=settings.config,
                    ready=ready,
                    waiting=partial(waiting, settings),
                    retention_days=settings.retention_days,
                    metrics=metrics,
                    schedules=schedules,
                ),
                lifespan="off",
                log_level="warning",
                access_log=False,
            ),
            listening,
            url,
        )


def _always() -> str:
    """It is ready."""
    return ""


@contextlib.contextmanager
def _named(data: Path, url: str) -> Iterator[None]:
    """Say in the directory who holds it, so that other commands talk to the server."""
    file = data / "server.json"
    file.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
