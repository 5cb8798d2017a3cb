"""The scaled product in processes: receivers, a Kafka broker, consumers and ClickHouse, each to be started, killed and stopped alone."""

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broker import Broker
from clickhouse import ClickHouse
from server import CLEAN, COMMAND, free_port

_READY_S = 120
"""How long a part may take to be ready on a busy machine."""


SESSION_S = 6
"""For which the group waits for a consumer that says nothing: the least that brokers take."""


class Part:
    """One process of the product. name: of its log; command: after `tallystick`."""

    def __init__(self, folder: Path, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self._command, self._env = [*COMMAND, *command], {**CLEAN, **env}
        self._log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Without waiting until it is ready."""
        with self._log.open("ab") as log:
            self._from = self._log.stat().st_size
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env, stdin=subprocess.DEVNULL)

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def run(self) -> int:
        """To its end; its exit status."""
        self.launch()
        assert self.process is not None
        return self.process.wait(120)

    def wait_until_ready(self) -> None:
        until = time.monotonic() + _READY_S
        while not self.said("ready "):
            assert self.running, self.log()[-4000:]
            assert time.monotonic() < until, self.log()[-4000:]
            time.sleep(0.02)

    def said(self, text: str) -> bool:
        """Whether a line since its last start begins so."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return any(line.startswith(text.encode()) for line in log)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and nothing is wrong with it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=90) == 0, self.log()[-4000:]

    def log(self) -> str:
        return self._log.read_text(errors="replace")


class System:
    """Receivers, a Kafka broker, consumers of one group, and ClickHouse, while the block runs. Topics have four partitions.

    clickhouse: where ClickHouse keeps its data, if not in `folder`.
    """

    def __init__(self, folder: Path, *, receivers: int = 2, consumers: int = 2, clickhouse: Path | None = None) -> None:
        self.folder = folder
        self.broker = Broker(folder / "broker")
        self.clickhouse = ClickHouse(clickhouse or folder / "clickhouse")
        self.env = {
            "TALLYSTICK_KAFKA": self.broker.address,
            "TALLYSTICK_KAFKA_SESSION_S": str(SESSION_S),
            "TALLYSTICK_RETENTION_DAYS": "0",
            "TALLYSTICK_HEALTH_PORT": "0",
            "TALLYSTICK_BATCH_WINDOW_MS": "200",
        }
        self._receivers, self._consumers = receivers, consumers

    def __enter__(self) -> Self:
        self.broker.start()
        self.clickhouse.start()
        migrated = self.run("migrate", "--partitions", "4", "--replication", "1", env=self.clickhouse.env("admin"))
        assert migrated.returncode == 0, migrated.stderr
        ports = [free_port() for _ in range(self._receivers)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.receivers = [self.receiver(f"receiver-{number}", port) for number, port in enumerate(ports)]
        self.consumers = [self.consumer(f"consumer-{number}") for number in range(self._consumers)]
        for part in self.parts:
            part.launch()
        for part in self.parts:
            part.wait_until_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self.parts:
            part.kill()
        self.broker.kill()
        self.clickhouse.kill()

    @property
    def parts(self) -> list[Part]:
        return [*self.receivers, *self.consumers]

    def receiver(self, name: str, port: int, env: Mapping[str, str] | None = None) -> Part:
        command = ["receiver", "--data", str(self.folder / name), "--port", str(port), "--grpc-port", "0"]
        return Part(self.folder, name, command, {**self.env, **(env or {})})

    def consumer(self, name: str, env: Mapping[str, str] | None = None) -> Part:
        return Part(self.folder, name, ["ingest"], {**self.env, **self.clickhouse.env("ingest"), **(env or {})})

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """A command of `tallystick`, to its end."""
        return subprocess.run(
            [*COMMAND, *command],
            env={**CLEAN, **self.env, **(env or {})},
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the ledger answers, past everything of ours."""
        text = self.clickhouse.ask(
            f"{query} FORMAT JSONEachRow", database="tallystick", output_format_json_quote_64bit_integers=0
        )
        return [json.loads(line) for line in text.splitlines()]
