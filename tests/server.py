"""The real server in a process of its own, as tests drive it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tallystick.client import Client
from tallystick.ingest.keys import KeyStore, Role

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "OTEL_"))}
COMMAND = [sys.executable, "-m", "tallystick.cli"]

Body = ExportTraceServiceRequest | Mapping[str, Any] | bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`tallystick up` on `data`, while the block runs. Recordings are years old one day: nothing is ever deleted for its age.

    env: settings by their variable's name. config: of `--config`. grpc: whether OTLP/gRPC is served, too, on `grpc_port`.
    """

    def __init__(
        self, data: Path, *, grpc: bool = False, port: int = 0, env: Mapping[str, str] | None = None, config: Path | None = None
    ) -> None:
        self.data = data
        self.port = port
        self.grpc_port = free_port() if grpc else 0
        self._config = ["--config", str(config)] if config else []
        self._env = {**CLEAN, "TALLYSTICK_RETENTION_DAYS": "0", **(env or {})}
        self._log = data.parent / f"{data.name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def launch(self) -> subprocess.Popen[str]:
        """The process, without waiting until it is ready. Its standard error is added to the log."""
        command = [
            *COMMAND,
            "up",
            "--data",
            str(self.data),
            "--port",
            str(self.port),
            "--grpc-port",
            str(self.grpc_port),
            *self._config,
        ]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._env)

    def start(self) -> None:
        self.process = self.launch()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), f"{line!r}\n{self.log()}"
        self.url = line.split()[1]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False, limits=limits)

    def post(self, body: Body, key: str | None = None, **headers: str) -> httpx.Response:
        """One request to /v1/traces; header names have `_` for `-`. A mapping is sent as JSON, anything else as protobuf."""
        if isinstance(body, ExportTraceServiceRequest):
            body = body.SerializeToString()
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | _bearer(key)
        if isinstance(body, bytes):
            return self.http.post("/v1/traces", content=body, headers={"content-type": "application/x-protobuf", **sent})
        return self.http.post("/v1/traces", json=body, headers=sent)

    def post_all(self, bodies: Iterable[Body], key: str | None = None) -> None:
        """All at once, so that the server commits them together; each is taken whole."""
        with ThreadPoolExecutor(32) as pool:
            for answer in pool.map(lambda body: self.post(body, key), bodies):
                assert answer.status_code == 200, answer.text
                assert rejected(answer) == 0, answer.text

    def sql(self, query: str, key: str | None = None) -> list[dict[str, Any]]:
        with Client(self.url, key) as client:
            return client.sql(query).dicts()

    def key(self, tenant: str, operator: bool = False, role: Role = Role.MEMBER) -> str:
        return KeyStore(self.data).create(tenant, Role.OPERATOR if operator else role)

    def log(self) -> str:
        return self._log.read_text()

    def peak_memory(self) -> int:
        """The most bytes of memory that the process ever held at once."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) << 10

    def stop(self) -> None:
        """SIGTERM, and nothing is wrong with it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()
        self.http.close()


def rejected(answer: httpx.Response) -> int:
    """Rejected spans in an answer of /v1/traces."""
    if answer.headers["content-type"] == "application/json":
        return int(answer.json().get("partialSuccess", {}).get("rejectedSpans", 0))
    return ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans


def reason(answer: httpx.Response) -> str:
    """Why spans were rejected."""
    return ExportTraceServiceResponse.FromString(answer.content).partial_success.error_message


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
