"""`clickhouses://`: a server behind a certificate of an authority of one's own."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse import ClickHouse

from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import scalar


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself; its key is `key.pem` beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "ca.pem",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return folder / "ca.pem"


@pytest.fixture
def port(server: ClickHouse, certificate: Path) -> Iterator[int]:
    """Where TLS ends, in front of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.parent / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=forward, args=(listening, context, server.port), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def forward(listening: socket.socket, context: ssl.SSLContext, to: int) -> None:
    while True:
        try:
            connection = context.wrap_socket(listening.accept()[0], server_side=True)
        except ssl.SSLError:
            continue
        except OSError:
            return
        onward = socket.create_connection(("127.0.0.1", to))
        for source, target in ((connection, onward), (onward, connection)):
            threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()


def test_a_server_is_asked_over_tls(server: ClickHouse, port: int, certificate: Path) -> None:
    url = server.url("admin", port).replace("clickhouse://", "clickhouses://")
    store = ServerStore(url, server.password, ca=certificate)
    assert scalar(store.each_host("system")[0], "SELECT currentUser()") == "tallystick_admin"


def test_one_that_nobody_vouches_for_isn_t(server: ClickHouse, port: int) -> None:
    with pytest.raises(StoreUnavailable, match="SSLError"):
        ServerStore(server.url("admin", port).replace("clickhouse://", "clickhouses://"), server.password)
