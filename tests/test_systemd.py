"""Units of deploy/systemd, as systemd itself reads them, and that their commands and variables exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tallystick.cli import cli
from tallystick.server.serving import DRAIN_S
from tallystick.settings import TABLE

FOLDER = Path(__file__).parent.parent / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd isn't here")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for unit in tmp_path.glob("*.service"):
        # It looks for the program.
        unit.write_text(unit.read_text().replace("/opt/tallystick/bin/tallystick", sys.executable))
    names = [unit.name.replace("@.", "@1.") for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        cwd=tmp_path, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    text = unit.read_text()
    (command,) = re.findall(r"^ExecStart=/opt/tallystick/bin/tallystick (.+)$", text, re.MULTILINE)
    assert CliRunner().invoke(cli, [*command.split(), "--help"]).exit_code == 0
    assert set(re.findall(r"TALLYSTICK_\w+", text)) <= {row.env for row in TABLE}
    (directory,) = re.findall(r"^StateDirectory=(.+)$", text, re.MULTILINE)
    assert f"TALLYSTICK_DATA=%S/{directory}\n" in text, "what it writes is its own directory"
    assert ("Restart=on-failure" in text) == ("Type=oneshot" not in text)


def test_every_unit_has_what_holds_for_all() -> None:
    shared = FOLDER / "tallystick-.service.d" / "process.conf"
    assert (FOLDER / "tallystick.service.d" / "process.conf").resolve() == shared
    assert all(unit.name.startswith("tallystick-") or unit.name == "tallystick.service" for unit in UNITS)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", shared.read_text(), re.MULTILINE)
    assert int(stop) > DRAIN_S
