"""Every tallystick command of docker-compose.yml as a process with the file's own environment, against a real broker, ClickHouse server and PostgreSQL.

Only addresses, ports and directories are others. What an image would add is the Dockerfile's ENV.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from broker import Broker
from clickhouse import ClickHouse
from composed import ROOT, composed, figures, made_env, tallystick_services
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otlp import GOOD, request, span
from postgres import postgres
from server import CLEAN, COMMAND, free_port

IMAGE = dict(re.findall(r"(TALLYSTICK_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
"""Of its ENV."""
LONGEST_S = 120


@dataclass
class Role:
    """One container's process. `ports`: of the container → those of this machine."""

    name: str
    command: list[str]
    env: dict[str, str]
    health: list[str]
    log: Path
    ports: dict[int, int] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *self.command], stdout=subprocess.PIPE, stderr=log, text=True, env=self.env, cwd=self.log.parent
            )

    def ready(self) -> None:
        """Once it says so. A process that ends instead has said why."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), f"{self.name}: {line!r}\n{self.log.read_text()[-4000:]}"

    def healthy(self) -> subprocess.CompletedProcess[str]:
        """Its health check, as docker would run it."""
        assert self.health[:2] == ["CMD", "healthy"]
        url = re.sub(r":(\d+)/", lambda found: f":{self.ports[int(found[1])]}/", self.health[2])
        return subprocess.run(
            [sys.executable, ROOT / "deploy" / "healthy.py", url], capture_output=True, text=True, check=False, timeout=30
        )

    def stop(self) -> int:
        """SIGTERM, as `docker stop` does: its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=LONGEST_S)
        return self.process.returncode

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Machine:
    """What the compose file makes of one: brokers and servers by the tests' own means, roles as processes."""

    def __init__(self, directory: Path, broker: Broker, clickhouse: ClickHouse, database: str) -> None:
        self._directory, self.clickhouse = directory, clickhouse
        environ = made_env(directory / ".env")
        environ |= {
            name: clickhouse.password for name in environ if name.startswith("CLICKHOUSE_") and name.endswith("_PASSWORD")
        }
        self._addresses = {
            "postgresql+psycopg://tallystick@postgres/tallystick": database,
            "clickhouse:8123": clickhouse.address,
            "kafka:9092": broker.address,
            "/var/lib/tallystick-keys/": f"{directory}/keys/",
            "/var/lib/tallystick-prometheus/": f"{directory}/",
            "/etc/tallystick/": f"{ROOT}/deploy/config/",
        }
        services = tallystick_services(composed(environ))
        self.migrate = self._role("migrate", services.pop("migrate"))
        self._prometheus = services.pop("prometheus-key")
        self.roles: dict[str, Role] = {}
        for name, service in services.items():
            replicas = service["deploy"].get("replicas", 1)
            for one in [f"{name}-{number}" for number in range(1, replicas + 1)] if replicas > 1 else [name]:
                self.roles[one] = self._role(one, service)
        self.gateway: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        done = subprocess.run(
            [*COMMAND, *self.migrate.command], capture_output=True, text=True, check=False, env=self.migrate.env
        )
        assert done.returncode == 0, done.stderr
        for role in self.roles.values():
            role.start()
        for role in self.roles.values():
            role.ready()

    def close(self) -> None:
        for role in self.roles.values():
            role.kill()
        if self.gateway is not None:
            self.gateway.kill()
            self.gateway.wait()

    def start_gateway(self) -> tuple[str, int]:
        """HAProxy with the file's configuration: the one URL, and the port of gRPC."""
        http, grpc, health = free_port(), free_port(), free_port()
        text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
        # `server NAME HOST:PORT` and, of gRPC, the port of its checks.
        for name, role in self.roles.items():
            for inside, outside in role.ports.items():
                text = text.replace(f" {name}:{inside}", f" 127.0.0.1:{outside}")
                text = re.sub(rf"(server {name} .* port ){inside}\b", rf"\g<1>{outside}", text)
        for old, new in ((":4318\n", http), (":4317 ", grpc), ("127.0.0.1:8404\n", health)):
            assert f"bind {old}" in text
            text = text.replace(f"bind {old}", f"bind 127.0.0.1:{new}{old[-1]}")
        file = self._directory / "haproxy.cfg"
        file.write_text(text)
        with (self._directory / "haproxy.log").open("ab") as log:
            self.gateway = subprocess.Popen(["haproxy", "-db", "-f", file], stdout=log, stderr=log)
        until_true(lambda: get(f"http://127.0.0.1:{health}/healthz") == 200)
        url = f"http://127.0.0.1:{http}"
        until_true(lambda: get(f"{url}/readyz") == 200)
        return url, grpc

    def key(self, tenant: str) -> str:
        """As docs/deploy.md tells to make one: `docker compose exec api tallystick keys create`."""
        done = subprocess.run(
            [*COMMAND, "keys", "create", "--tenant", tenant],
            capture_output=True,
            text=True,
            check=True,
            env=self.roles["api"].env,
        )
        return done.stdout.strip()

    def prometheus_key(self) -> str:
        """As its service makes it, and leaves it."""
        service = self._prometheus
        env = {**CLEAN, **{name: self._placed(value) for name, value in service["environment"].items()}}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        made = []
        for _ in range(2):
            subprocess.run([*service["entrypoint"], *map(self._placed, service["command"])], check=True, env=env)
            made.append((self._directory / "key").read_text())
        assert made[0] == made[1]
        return made[0].strip()

    def _role(self, name: str, service: dict[str, Any]) -> Role:
        data = self._directory / name
        data.mkdir()
        ports = {4318: free_port(), 4317: free_port(), 9464: free_port()}
        given = {variable: self._placed(str(value)) for variable, value in service["environment"].items()}
        env = {
            **CLEAN,
            **IMAGE,
            **given,
            "TALLYSTICK_DATA": str(data),
            "TALLYSTICK_PORT": str(ports[4318]),
            "TALLYSTICK_GRPC_PORT": str(ports[4317]),
            "TALLYSTICK_HEALTH_PORT": str(ports[9464]),
            # Recordings are years old one day.
            "TALLYSTICK_RETENTION_DAYS": "0",
        }
        return Role(name, service["command"], env, service["healthcheck"].get("test", []), self._directory / f"{name}.log", ports)

    def _placed(self, value: str) -> str:
        for old, new in self._addresses.items():
            value = value.replace(old, new)
        return value


def until_true(asked: Any) -> None:
    until = time.monotonic() + LONGEST_S
    while not asked():
        assert time.monotonic() < until
        time.sleep(0.05)


def get(url: str) -> int:
    """The status, 0 where nobody answers."""
    try:
        return httpx.get(url, trust_env=False, timeout=10).status_code
    except httpx.TransportError:
        return 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("machine")
    broker, clickhouse = Broker(directory / "kafka"), ClickHouse(directory / "clickhouse")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: part.start(), (broker, clickhouse)))
    machine = Machine(directory, broker, clickhouse, postgres().fresh())
    try:
        machine.start()
        yield machine
    finally:
        machine.close()
        broker.kill()
        clickhouse.kill()


@pytest.fixture(scope="module")
def key(machine: Machine) -> str:
    return machine.key("acme")


@pytest.fixture(scope="module")
def gateway(machine: Machine) -> tuple[str, int]:
    if not shutil.which("haproxy"):
        pytest.skip("HAProxy isn't here (Debian: apt-get install haproxy)")
    return machine.start_gateway()


NUMBERS = count()


def post(url: str, key: str | None, calls: int = 10) -> httpx.Response:
    spans = [span(f"compose{next(NUMBERS)}", attributes={"tallystick.customer": "compose"}) for _ in range(calls)]
    headers = {"content-type": "application/x-protobuf"} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.post(
        f"{url}/v1/traces", content=request(*spans).SerializeToString(), headers=headers, trust_env=False, timeout=60
    )


def calls_in_ledger(machine: Machine) -> int:
    return int(machine.clickhouse.ask("SELECT sum(calls) FROM charges", "reader", database="tallystick"))


def test_every_health_check_says_well(machine: Machine) -> None:
    for role in machine.roles.values():
        until_true(lambda role=role: role.healthy().returncode == 0)


def test_one_address_takes_spans_and_shows_the_page(machine: Machine, gateway: tuple[str, int], key: str) -> None:
    url, grpc = gateway
    before = calls_in_ledger(machine)
    assert post(url, None).status_code == 401
    for _ in range(4):
        answer = post(url, key)
        assert answer.status_code == 200, answer.text
    exporter = OTLPSpanExporter(
        endpoint=f"127.0.0.1:{grpc}", insecure=True, headers=(("authorization", f"Bearer {key}"),), timeout=30
    )
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for _ in range(5):
        with provider.get_tracer("opentelemetry.instrumentation.genai.openai").start_as_current_span("chat", attributes=GOOD):
            pass
    assert exporter.export(kept.get_finished_spans()) is SpanExportResult.SUCCESS
    exporter.shutdown()
    until_true(lambda: calls_in_ledger(machine) == before + 45)
    assert "<title>" in httpx.get(url, trust_env=False).text, "the page"


def test_the_same_address_answers_questions(machine: Machine, gateway: tuple[str, int], key: str) -> None:
    answer = httpx.get(f"{gateway[0]}/v1/spend", headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    assert int(answer.json()["total"]["calls"]) == calls_in_ledger(machine)


def test_figures_are_for_those_inside(machine: Machine, gateway: tuple[str, int], key: str) -> None:
    operators = {"authorization": f"Bearer {machine.prometheus_key()}"}
    assert get(f"{gateway[0]}/metrics") == 404
    for service, (port, keyed) in figures().items():
        for role in machine.roles.values():
            if role.name.startswith(service):
                url = f"http://127.0.0.1:{role.ports[port]}/metrics"
                answer = httpx.get(url, headers=operators if keyed else {}, trust_env=False, timeout=60)
                assert answer.status_code == 200, role.name
                assert "# TYPE" in answer.text, role.name
                assert not keyed or get(url) == 401


def test_a_receiver_may_die(machine: Machine, gateway: tuple[str, int], key: str) -> None:
    url, _ = gateway
    before = calls_in_ledger(machine)
    one = machine.roles["receiver-1"]
    one.kill()
    answers = [post(url, key, calls=1) for _ in range(30)]
    taken = sum(answer.status_code == 200 for answer in answers)
    assert {answer.status_code for answer in answers} <= {200, 502, 503}, "what an exporter sends again"
    assert [post(url, key, calls=1).status_code for _ in range(5)] == [200] * 5
    one.start()
    one.ready()
    until_true(lambda: calls_in_ledger(machine) == before + taken + 5)


MACROS = {
    r"\$__fromTime": "toDateTime('2026-01-01 00:00:00', 'UTC')",
    r"\$__toTime": "now('UTC')",
    r"\$__timeFilter\((\w+)\)": r"\1 >= toDateTime('2026-01-01 00:00:00', 'UTC') AND \1 <= now('UTC')",
    r"\$__timeInterval\((\w+)\)": r"toStartOfInterval(toDateTime(\1), INTERVAL 3600 second)",
    r"\$\{tenant:sqlstring\}": "'acme','globex'",
}
"""What Grafana's ClickHouse plugin makes of its macros, as its documentation says."""

SPEND = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "spend.json").read_text())


def test_every_panel_of_spend_is_answered_to_the_reader(machine: Machine) -> None:
    rows = (ROOT / "tests" / "calls_of_october.sql").read_text(encoding="utf-8")
    assert machine.clickhouse.ask(rows, database="tallystick") == ""
    queries = {panel["title"]: panel["targets"][0]["rawSql"] for panel in SPEND["panels"]}
    queries["Tenant"] = SPEND["templating"]["list"][0]["query"]
    for title, query in queries.items():
        for macro, meant in MACROS.items():
            query = re.sub(macro, meant, query)  # noqa: PLW2901
        assert "$" not in query, title
        answer = machine.clickhouse.ask(query, "reader", database="tallystick")
        assert "Exception" not in answer, f"{title}: {answer}"
        assert answer, title


def test_docker_stop_ends_each_well(machine: Machine) -> None:
    with ThreadPoolExecutor() as pool:
        ended = dict(zip(machine.roles, pool.map(Role.stop, machine.roles.values()), strict=True))
    assert ended == dict.fromkeys(machine.roles, 0), "\n".join(role.log.read_text()[-500:] for role in machine.roles.values())
