"""docker-compose.yml as tests read it: anchors merged, variables filled."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
FILE: Final = ROOT / "docker-compose.yml"

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def variables() -> dict[str, tuple[str, str]]:
    """Variables that the file takes from .env → (`?` or `-`, what stands after it)."""
    text = "\n".join(line.partition("# ")[0] for line in FILE.read_text(encoding="utf-8").splitlines())
    return {name: (kind, rest) for name, kind, rest in _VARIABLE.findall(text)}


def composed(environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables from `environ`. Raises KeyError where one that must be given isn't."""
    found: dict[str, Any] = _filled(yaml.safe_load(FILE.read_text(encoding="utf-8")), environ)
    return found


def tallystick_services(file: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that run our image."""
    return {name: service for name, service in file["services"].items() if service["image"].startswith("tallystick:")}


def figures() -> dict[str, tuple[int, bool]]:
    """Services that Prometheus asks → the port at which it asks them, and whether it does with a key."""
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    return {
        name: (asked["port"], "authorization" in job)
        for job in jobs
        for asked in job["dns_sd_configs"]
        for name in asked["names"]
    }


def made_env(target: Path) -> dict[str, str]:
    """What deploy/env.sh writes."""
    subprocess.run([ROOT / "deploy" / "env.sh", target], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in target.read_text().splitlines() if not line.startswith("#"))


def compose() -> list[str] | None:
    """Docker Compose's command, where there is one: with docker, by itself, or made by `make compose-check`."""
    asked = ["docker", "compose", "version"]
    if shutil.which("docker") and subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose") or shutil.which(ROOT / ".compose" / "docker-compose")
    return [found] if found else None


def _filled(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, environ) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, environ) for one in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda found: environ.get(found[1], found[3]) if found[2] == "-" else environ[found[1]], value)
