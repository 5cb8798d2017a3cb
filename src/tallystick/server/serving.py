"""What every process that is asked over HTTP does: log, listen, say that it is ready, and end well on SIGTERM."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final

import click
import uvicorn

from tallystick.server.footprint import shed_library

DRAIN_S: Final = 30
"""How long requests under way may take to finish after SIGTERM."""


def log_to_stderr() -> None:
    """Ours from INFO on; of those libraries that tell much, warnings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "apscheduler", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


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


def serve(config: uvicorn.Config, listening: socket.socket, url: str) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what is under way. Prints `ready URL` once it answers."""
    config.timeout_graceful_shutdown = DRAIN_S
    # What is loaded by now stays: the collector needn't look at it again and again while payloads come and go.
    gc.collect()
    gc.freeze()
    shed_library()
    _Server(config, url).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any. Raises OSError where it can't be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"can't listen on {host}:{port}: {error.strerror}") from error
    return listening


def address(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
