"""docker-compose.yml and the image, as far as they can be looked at without an engine. test_compose_commands runs what they run."""

import ast
import fnmatch
import hashlib
import re
import shutil
import stat
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from composed import FILE, ROOT, compose, composed, figures, made_env, tallystick_services, variables
from packaging.requirements import Requirement
from server import free_port

from tallystick.collectors.settings import VARIABLES
from tallystick.server.serving import DRAIN_S
from tallystick.settings import TABLE

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return made_env(tmp_path_factory.mktemp("env") / ".env")


@pytest.fixture(scope="module")
def services(environ: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = composed(environ)["services"]
    return found


@pytest.fixture(scope="module")
def compose_command() -> list[str]:
    command = compose()
    if command is None:
        pytest.skip("Docker Compose isn't here; `make compose-check` makes it")
    return command


# --- passwords ---


def test_compose_reads_it(compose_command: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in environ.items()))
    done = subprocess.run(
        [*compose_command, "-f", FILE, "--env-file", tmp_path / ".env", "config"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    read, ours = yaml.safe_load(done.stdout), composed(environ)
    assert read["services"].keys() == ours["services"].keys()
    for name, service in ours["services"].items():
        found = {key: str(value) for key, value in read["services"][name].get("environment", {}).items()}
        assert found == {key: str(value) for key, value in service.get("environment", {}).items()}, "as these tests read it"


def test_without_passwords_compose_says_what_to_do(compose_command: list[str], tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    done = subprocess.run(
        [*compose_command, "-f", FILE, "--env-file", tmp_path / ".env", "config"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "run deploy/env.sh" in done.stderr


def test_env_sh_makes_every_password_once(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    made = made_env(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.keys() == {name for name, (kind, _) in variables().items() if kind == "?"}
    assert len(set(made.values())) == len(made)
    for name, value in made.items():
        assert len(value) >= 22
        if name.endswith("_SHA256"):
            assert value == hashlib.sha256(made[name.replace("SHA256", "PASSWORD")].encode()).hexdigest()
    again = subprocess.run([ROOT / "deploy" / "env.sh", file], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "take it away first" in again.stderr
    assert dict(line.split("=", 1) for line in file.read_text().splitlines()[1:]) == made
    assert made_env(tmp_path / "other").items().isdisjoint(made.items())


def test_no_password_stands_in_it(services: dict[str, Any], environ: dict[str, str]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SHA256|SECRET|TOKEN", variable):
                assert value in environ.values(), f"{name}: {variable}"
            assert not re.search(r"://[^/@\s]+:[^/@\s]+@", str(value)), f"{name}: {variable}"
    assert {name for name, (kind, _) in variables().items() if kind == "-"} == {"LISTEN", "PUBLIC_URL"}
    assert all(value not in FILE.read_text() for value in environ.values())


def test_a_process_has_the_passwords_of_its_own_role_only(services: dict[str, Any], environ: dict[str, str]) -> None:
    clickhouse = {
        name.split("_")[1].lower(): value for name, value in environ.items() if re.fullmatch(r"CLICKHOUSE_\w+_PASSWORD", name)
    }
    holders = {
        role: {name for name, service in services.items() if password in service.get("environment", {}).values()}
        for role, password in clickhouse.items()
    }
    assert holders == {"admin": {"migrate"}, "ingest": {"ingest"}, "api": {"api"}, "alerts": {"alerts"}, "reader": {"grafana"}}
    for role, (name,) in holders.items():
        if name != "grafana":
            assert (
                services[name]["environment"]["TALLYSTICK_CLICKHOUSE"]
                == f"clickhouse://tallystick_{role}@clickhouse:8123/tallystick"
            )


# --- services ---


def test_every_setting_in_it_exists(services: dict[str, Any]) -> None:
    known = {row.env for row in TABLE} | {row.name for row in VARIABLES}
    for name, service in tallystick_services({"services": services}).items():
        ours = {variable for variable in service.get("environment", {}) if variable.startswith("TALLYSTICK_")}
        assert ours <= known, name
    assert set(re.findall(r"TALLYSTICK_\w+", DOCKERFILE)) <= known
    users = (ROOT / "deploy" / "clickhouse" / "users.xml").read_text()
    assert set(re.findall(r'from_env="(\w+)"', users)) == services["clickhouse"]["environment"].keys()


def test_images_are_pinned_to_what_tests_run_against(services: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in services.items()}
    for image in [*images.values(), *re.findall(r"^ARG PYTHON=(\S+)", DOCKERFILE, re.MULTILINE)]:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)*$", image), image
    assert {image for name, image in images.items() if "build" in services[name]} == {f"tallystick:{version('tallystick')}"}
    assert f"ARG VERSION={version('tallystick')}\n" in DOCKERFILE
    kafka = re.search(r"kafka_2.13</artifactId><version>([\d.]+)<", (ROOT / "deploy" / "kafka" / "pom.xml").read_text())
    clickhouse = re.search(r"lib-linux-x64-gnu@(\d+\.\d+)\.", (ROOT / "deploy" / "clickhouse" / "run.sh").read_text())
    assert kafka
    assert clickhouse
    assert images["kafka"] == f"apache/kafka:{kafka[1]}"
    assert images["clickhouse"] == f"clickhouse/clickhouse-server:{clickhouse[1]}"


def test_only_the_gateway_and_grafana_are_published_and_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:4318:4318", "127.0.0.1:4317:4317"], "grafana": ["127.0.0.1:3000:3000"]}


def test_each_service_reaches_only_what_it_must(environ: dict[str, str], services: dict[str, Any]) -> None:
    networks = composed(environ)["networks"]
    assert {name for name, network in networks.items() if not network.get("internal")} == {"front", "out"}

    def on(network: str) -> set[str]:
        return {name for name, service in services.items() if network in service.get("networks", [])}

    assert on("front") == {"gateway", "receiver-1", "receiver-2", "api"}
    assert on("kafka") == {"kafka", "receiver-1", "receiver-2", "ingest", "api", "migrate"}
    assert on("store") == {"clickhouse", "ingest", "api", "alerts", "migrate", "grafana"}
    assert on("journal") == {"postgres", "alerts", "api"}
    assert on("out") == {"alerts", "grafana"}
    assert services["prometheus-key"]["network_mode"] == "none"
    assert set().union(*map(on, networks)) == services.keys() - {"prometheus-key"}


def test_each_service_is_bounded_watched_and_ended_in_its_time(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"] == {"driver": "local"}, "which rotates"
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name in ("migrate", "prometheus-key"):
            assert service["restart"] == "no"
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] == "CMD", name
    for name, service in tallystick_services({"services": services}).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_S, name
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            finishes = services[other]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if finishes else "service_healthy"), name


def test_what_is_mounted_exists(environ: dict[str, str], services: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith(".")} == composed(environ)["volumes"].keys()
    for mount in mounts:
        if mount.startswith("."):
            assert (ROOT / mount).exists(), mount
    spools = [mount for service in services.values() for mount in service.get("volumes", []) if mount.startswith("receiver-")]
    assert len(spools) == len(set(spools)) == 2, "a spool has one owner"


def test_the_configuration_is_a_valid_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli", "budgets", "validate", ROOT / "deploy" / "config" / "tallystick.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_prometheus_asks_every_role_where_its_health_is_asked(services: dict[str, Any]) -> None:
    on_metrics = {name for name, service in services.items() if "metrics" in service.get("networks", [])} - {"prometheus"}
    ports = {name: port for name, (port, _) in figures().items()}
    assert ports == {name: int(re.findall(r":(\d+)/readyz", services[name]["healthcheck"]["test"][2])[0]) for name in on_metrics}
    assert {name for name, (_, keyed) in figures().items() if keyed} == {"receiver-1", "receiver-2", "api"}


@pytest.mark.skipif(not shutil.which("haproxy"), reason="HAProxy isn't here")
def test_haproxy_takes_its_configuration() -> None:
    done = subprocess.run(
        ["haproxy", "-c", "-f", ROOT / "deploy" / "haproxy" / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- the image ---


def test_what_the_dockerfile_copies_passes_dockerignore() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        path
        for line in re.findall(r"^COPY (?:--chmod=\d+ )?(?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for path in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / path).exists() for path in copied)


def test_the_wheel_of_the_copied_files_holds_every_room(tmp_path: Path) -> None:
    copied = tmp_path / "src"
    copied.mkdir()
    for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copied / source, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            elif not source.startswith("deploy/"):
                shutil.copy(ROOT / source, copied / source)
    assert f"hatchling=={version('hatchling')}" in DOCKERFILE
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "wheels"],
        cwd=copied,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    for room in (
        "schema/migrations/0001_ledger.sql",
        "ingest/receiver.py",
        "alerts/tick.py",
        "attribution/page.html",
        "cli/up.py",
    ):
        assert f"tallystick/{room}" in names
    assert not fnmatch.filter(names, "*.env")


def test_the_lock_satisfies_the_extras() -> None:
    locked = dict(
        line.partition(" ;")[0].split("==")
        for line in (ROOT / "deploy" / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(row for name in ("server", "kafka", "postgres", "tokens") for row in extras[name]),
    ]
    for row in wanted:
        needed = Requirement(row)
        name = re.sub(r"[-_.]+", "-", needed.name).lower()
        assert name in locked, f"{row}: run `make image-lock`"
        assert needed.specifier.contains(locked[name], prereleases=True), f"{row}: run `make image-lock`"


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = self.path == "/readyz"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"" if ready else b"the spool is full")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def healthy(url: str) -> subprocess.CompletedProcess[str]:
    environ = {"http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, ROOT / "deploy" / "healthy.py", url], capture_output=True, text=True, env=environ, check=False
    )


def test_a_health_check_tells_well_from_ill(answering: str) -> None:
    assert healthy(f"{answering}/readyz").returncode == 0
    full = healthy(f"{answering}/other")
    assert (full.returncode, full.stderr) == (1, "503: the spool is full\n")
    gone = healthy(f"http://127.0.0.1:{free_port()}/readyz")
    assert gone.returncode == 1
    assert "refused" in gone.stderr


def test_the_health_check_needs_nothing_but_python() -> None:
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse((ROOT / "deploy" / "healthy.py").read_text()))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert imported <= sys.stdlib_module_names
