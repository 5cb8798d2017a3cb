"""serve.py LIBRARY DATA HTTP_PORT TCP_PORT: ClickHouse over HTTP and its native protocol on 127.0.0.1, until the process is ended.

DATA/config.xml may hold what a server's does: users_config, remote_servers, macros. Not there: replication between servers, ON CLUSTER, CREATE USER.
"""

import ctypes
import sys
from typing import Final

_LISTEN: Final = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP"

_WAIT: Final = """SELECT sleepEachRow(3) FROM numbers(100000000) FORMAT Null
SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"""
"""It listens for as long as its own query runs."""


class _Result(ctypes.Structure):
    """`local_result_v2` of the library."""

    _fields_ = (
        ("buffer", ctypes.c_char_p), ("length", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("seconds", ctypes.c_double),
        ("rows", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("error", ctypes.c_char_p),
    )  # fmt: skip


def main() -> None:
    library, data, http_port, tcp_port = sys.argv[1:]
    arguments = [
        "clickhouse", "--path", data, "--config-file", f"{data}/config.xml", "--listen_host", "127.0.0.1",
        "--http_port", http_port, "--tcp_port", tcp_port, "--query", f"{_LISTEN}; {_WAIT}",
    ]  # fmt: skip
    serve = ctypes.CDLL(library).query_stable_v2
    serve.restype = ctypes.POINTER(_Result)
    result = serve(len(arguments), (ctypes.c_char_p * len(arguments))(*map(str.encode, arguments)))
    sys.exit((result.contents.error or b"the server ended").decode() if result else "the server did not start")


if __name__ == "__main__":
    main()
