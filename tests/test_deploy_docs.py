"""What docs/deploy.md and docs/sizing.md name exists: commands, variables, services, units, files; and its figures are those of the code."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from composed import ROOT, composed, made_env

from tallystick.cli import cli
from tallystick.collectors.settings import VARIABLES
from tallystick.ingest.topics import RECEIVED_CONFIG
from tallystick.server.serving import DRAIN_S
from tallystick.settings import TABLE, setting

DEPLOY = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BOTH = DEPLOY + (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    inline = re.findall(r"`(tallystick [^`]+)`", DEPLOY)
    typed = re.findall(r"^(?:\$ )?(?:docker compose exec api )?(tallystick [a-z].*)$", DEPLOY, re.MULTILINE)
    return sorted({*inline, *typed})


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one(command: str) -> None:
    words = command.removeprefix("tallystick ").split()
    names = [word for word in words if re.fullmatch(r"[a-z]+", word)]
    options = [word for word in words if word.startswith("--")]
    # What doesn't name a command is an argument of the one before it.
    shown = [CliRunner().invoke(cli, [*names[:length], "--help"]) for length in range(len(names), 0, -1)]
    known = next(one for one in shown if one.exit_code == 0)
    assert all(re.search(rf"{option}\b", known.output) for option in options), command


def test_variables_exist() -> None:
    known = {row.env for row in TABLE} | {row.name for row in VARIABLES}
    assert set(re.findall(r"TALLYSTICK_\w+", BOTH)) <= known


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", BOTH):
        assert (ROOT / "docs" / target).exists(), target
    for named in re.findall(r"`(deploy/[\w./-]+|docker-compose.yml)`", BOTH):
        assert (ROOT / named).exists(), named
    for anchor in re.findall(r"\]\(#([\w-]+)\)", DEPLOY):
        assert re.search(rf"^## {anchor.replace('-', ' ')}$", DEPLOY, re.MULTILINE | re.IGNORECASE), anchor


def test_services_and_units_are_those_of_the_files(tmp_path: Path) -> None:
    services = composed(made_env(tmp_path / ".env"))["services"]
    assert set(re.findall(r"docker compose exec ([\w-]+)", DEPLOY)) <= services.keys()
    units = {unit.stem for unit in (ROOT / "deploy" / "systemd").glob("*.service")}
    started = re.findall(r"systemctl (?:start|enable --now) (.+)$", DEPLOY, re.MULTILINE)
    assert {re.sub(r"@\d", "@", unit) for line in started for unit in line.split()} == units - {"tallystick"}
    for target in re.findall(r"`make ([\w-]+)`", DEPLOY):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def test_figures_are_the_codes() -> None:
    assert f"within {DRAIN_S} seconds" in DEPLOY
    assert f"| {RECEIVED_CONFIG['max.message.bytes']}, Kafka's default |" in DEPLOY
    days = int(RECEIVED_CONFIG["retention.ms"]) // 86_400_000
    assert f"| retention | {days} days |" in DEPLOY
    assert f"Kafka keeps {days} days" in DEPLOY
    assert f"--topic {setting('kafka_received').default} " in DEPLOY
    assert f"--group {setting('kafka_group').default} " in DEPLOY
