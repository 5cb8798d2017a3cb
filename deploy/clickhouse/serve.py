"""serve.py LIBRARY DATA HTTP_PORT TCP_PORT: ClickHouse over HTTP and its native protocol on 127.0.0.1, until the process is ended.

DATA/config.xml may hold what a server's does: users_config, remote_servers, macros. Not there: replication between servers, ON CLUSTER, CREATE USER.
"""

import ctypes
import socket
import sys
from contextlib import suppress
from threading import Thread
from typing import Final

_LISTEN: Final = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP"

_WAIT: Final = """SELECT sleepEachRow(3) FROM numbers(100000000) FORMAT Null
SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"""
"""It listens for as long as its own query runs."""


_INSIDE: Final = "127.0.0.2"
"""Where the library itself listens, besides 127.0.0.1."""


def _guard(gate: socket.socket, port: int) -> None:
    """Passes connections of `gate` on to the library, and keeps from it that one was reset.

    Servers reset connections to each other whenever they have enough of an answer (LIMIT). A real one notes that; the library ends its process.
    """
    while True:
        peer = gate.accept()[0]
        try:
            library = socket.create_connection((_INSIDE, port))
        except OSError:
            peer.close()
            continue
        for connection in (peer, library):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((peer, library), (library, peer)):
            Thread(target=_copy, args=ends, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until `source` has ended, in whatever way; what `target` doesn't want any more is left out."""
    wanted = True
    with suppress(OSError):
        while data := source.recv(1 << 18):
            if wanted:
                try:
                    target.sendall(data)
                except OSError:
                    wanted = False
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Result(ctypes.Structure):
    """`local_result_v2` of the library."""

    _fields_ = (
        ("buffer", ctypes.c_char_p), ("length", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("seconds", ctypes.c_double),
        ("rows", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("error", ctypes.c_char_p),
    )  # fmt: skip


def main() -> None:
    library, data, http_port, tcp_port = sys.argv[1:]
    arguments = [
        "clickhouse", "--path", data, "--config-file", f"{data}/config.xml", "--http_port", http_port, "--tcp_port", tcp_port, "--query", f"{_LISTEN}; {_WAIT}",
    ]  # fmt: skip
    gate = socket.create_server(("127.0.0.1", int(tcp_port)), backlog=1024)
    Thread(target=_guard, args=(gate, int(tcp_port)), daemon=True).start()
    serve = ctypes.CDLL(library).query_stable_v2
    serve.restype = ctypes.POINTER(_Result)
    result = serve(len(arguments), (ctypes.c_char_p * len(arguments))(*map(str.encode, arguments)))
    sys.exit((result.contents.error or b"the server ended").decode() if result else "the server did not start")


if __name__ == "__main__":
    main()
