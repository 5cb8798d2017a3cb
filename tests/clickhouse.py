"""Real ClickHouse servers in processes of their own, as tests drive them."""

import hashlib
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from server import CLEAN

RUN: Final = Path(__file__).parent.parent / "deploy" / "clickhouse" / "run.sh"

CLUSTER: Final = "tally"
"""Name of the cluster that the servers of a ClickHouseCluster know themselves to be."""

_ROLES: Final = ("admin", "ingest", "api", "alerts", "reader")


class ClickHouse:
    """A server on loopback while the block runs, with the users of deploy/clickhouse/users.xml; what it holds survives `kill` and `start`.

    config: XML for its config.d, from `<clickhouse>` on. password: everybody's; a new one if there is none given.
    """

    def __init__(self, data: Path, config: str = "", *, password: str = "") -> None:
        self._data, self.config = data, config
        self.password = password or secrets.token_urlsafe(16)
        self.port, self.tcp_port = _kept_port(), _kept_port()
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def url(self, role: str = "admin", port: int | None = None) -> str:
        """What TALLYSTICK_CLICKHOUSE is for a role: admin, ingest, api, alerts or reader. port: of something that stands before the server."""
        return f"clickhouse://tallystick_{role}@127.0.0.1:{port or self.port}/tallystick"

    def env(self, role: str = "admin") -> dict[str, str]:
        """Settings of a process of that role."""
        return {"TALLYSTICK_CLICKHOUSE": self.url(role), "TALLYSTICK_CLICKHOUSE_PASSWORD": self.password}

    def launch(self) -> None:
        """The process, without waiting until it answers."""
        self._data.mkdir(parents=True, exist_ok=True)
        more = []
        if self.config:
            more = [self._data.parent / f"{self._data.name}.xml"]
            more[0].write_text(self.config)
        hashed = hashlib.sha256(self.password.encode()).hexdigest()
        with self.log.open("a") as out:
            self._process = subprocess.Popen(
                [RUN, self._data, str(self.port), str(self.tcp_port), *more],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**CLEAN, **{f"TALLYSTICK_{role.upper()}_SHA256": hashed for role in _ROLES}},
            )  # fmt: skip

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + 120
        while not self._pings():
            assert self._process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < until, self.log.read_text()[-4000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, no chance to write anything. Fails where it had ended by itself."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL, (
            f"it ended by itself ({self._process.returncode}): {self.log.read_text()[-4000:]}"
        )

    def restart(self) -> None:
        """SIGKILL, and up again on what it had written."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """It answers nothing, and closes nothing."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def ask(self, query: str, role: str = "admin", **settings: object) -> str:
        """What a statement answers over plain HTTP, as TabSeparated; its error where there is one. settings: of ClickHouse."""
        headers = {"X-ClickHouse-User": f"tallystick_{role}", "X-ClickHouse-Key": self.password}
        params = {name: str(value) for name, value in settings.items()}
        with httpx.Client(trust_env=False, timeout=60) as http:
            return http.post(f"http://{self.address}/", content=query, headers=headers, params=params).text.strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._data.parent / f"{self._data.name}.log"

    def _pings(self) -> bool:
        try:
            answer = httpx.get(f"http://{self.address}/ping", trust_env=False, timeout=5)
        except httpx.TransportError:
            return False
        with socket.socket() as probe:
            return answer.status_code == 200 and probe.connect_ex(("127.0.0.1", self.tcp_port)) == 0


class ClickHouseCluster:
    """Servers that are the shards of one cluster, each a ClickHouse of its own to stop and start: `shards[0]` is the one that is asked."""

    def __init__(self, data: Path, shards: int = 2) -> None:
        self.shards: Sequence[ClickHouse] = ()
        password, secret = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        made = [ClickHouse(data / f"shard{number}", password=password) for number in range(1, shards + 1)]
        hosts = "".join(
            f"<shard><replica><host>127.0.0.1</host><port>{shard.tcp_port}</port></replica></shard>" for shard in made
        )
        servers = f"<remote_servers><{CLUSTER}><secret>{secret}</secret>{hosts}</{CLUSTER}></remote_servers>"
        for shard in made:
            shard.config = f"<clickhouse>{servers}</clickhouse>"
        self.shards, self.password = made, password

    def __enter__(self) -> Self:
        for shard in self.shards:
            shard.launch()
        for shard in self.shards:
            shard.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for shard in self.shards:
            shard.kill()

    def url(self, role: str = "admin") -> str:
        """What TALLYSTICK_CLICKHOUSE is for a role."""
        return f"clickhouse://tallystick_{role}@{','.join(shard.address for shard in self.shards)}/tallystick"

    def env(self, role: str = "admin") -> Mapping[str, str]:
        """Settings of a process of that role."""
        return {
            "TALLYSTICK_CLICKHOUSE": self.url(role),
            "TALLYSTICK_CLICKHOUSE_PASSWORD": self.password,
            "TALLYSTICK_CLICKHOUSE_CLUSTER": CLUSTER,
        }

    def ask(self, query: str, role: str = "admin", **settings: object) -> str:
        """As ClickHouse.ask, of the first shard."""
        return self.shards[0].ask(query, role, **settings)


def _kept_port() -> int:
    """A free port that no connection is given while the server is down: below those that systems take for connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
