"""`tallystick up`: everything in one process, until SIGTERM."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
import uvicorn

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.ingest.committer import Committer
from tallystick.ingest.keys import KeyStore
from tallystick.ingest.migrate import migrate
from tallystick.ingest.payload import Limits
from tallystick.ingest.receiver import Receiver, grpc_server
from tallystick.ingest.store import open_store
from tallystick.ingest.writer import Writer
from tallystick.server.alerts import Alerts
from tallystick.server.app import create_app
from tallystick.server.auth import Door
from tallystick.server.corrections import Desk, open_corrections
from tallystick.settings import Settings

log = logging.getLogger(__name__)

_DRAIN_S: Final = 30
"""How long requests under way may take to finish after SIGTERM."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted. Raises StoreError, PriceFileError, OSError (a port is taken)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "apscheduler", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if settings.config is not None:
        # The engine moves into its directory.
        settings = replace(settings, config=settings.config.absolute())
    prices = load_prices_file(settings.config) if settings.config else UserPrices()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(settings.data))
        keys = KeyStore(store.data)
        keys.load()
        for name in migrate(store.client(), settings.retention_days):
            log.info("applied migration %s", name)
        book = PriceBook(prices)
        voiding = threading.Lock()
        desk = Desk(open_corrections(store.client(), voiding), book)
        committer = Committer(
            lambda: Writer(store.client(), book, voiding),
            window_s=settings.batch_window_ms / 1000,
            max_spans=settings.batch_max_spans,
        )
        committer.start()
        stack.callback(committer.close)
        door = Door(keys, settings.host)
        receiver = Receiver(committer, door.sender, Limits(settings.max_body_bytes, settings.max_request_spans))
        listening = stack.enter_context(contextlib.closing(_listen(settings.host, settings.port)))
        if settings.grpc_port:
            server, _ = grpc_server(receiver, _address(settings.host, settings.grpc_port))
            server.start()
            stack.callback(lambda: server.stop(_DRAIN_S).wait())
        url = f"http://{_address(settings.host, listening.getsockname()[1])}"
        stack.enter_context(_named(store.data, url))
        alerts = Alerts(store, settings, url)
        alerts.start()
        stack.callback(alerts.stop)
        if not door.open:
            log.info("listening on %s, which isn't a loopback address: every request needs a key", settings.host)
        _serve(
            uvicorn.Config(
                create_app(store, committer, receiver, door, alerts, prices=prices, desk=desk, config=settings.config),
                lifespan="off",
                log_level="warning",
                access_log=False,
            ),
            listening,
            url,
        )


class _Server(uvicorn.Server):
    """Says when it is ready, and ends with exit status 0 on SIGTERM: that is how it is meant to end."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        click.echo(f"ready {self._url}")
        sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.handle_exit, name, None)
        yield


def _serve(config: uvicorn.Config, listening: socket.socket, url: str) -> None:
    config.timeout_graceful_shutdown = _DRAIN_S
    # What is loaded by now stays: the collector needn't look at it again and again while payloads come and go.
    gc.collect()
    gc.freeze()
    _Server(config, url).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"can't listen on {host}:{port}: {error.strerror}") from error
    return listening


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _named(data: Path, url: str) -> Iterator[None]:
    """Say in the directory who holds it, so that other commands talk to the server."""
    file = data / "server.json"
    file.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
