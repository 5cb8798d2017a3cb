"""The example of examples/two_services, as its README says it is run."""

import re
import subprocess
import sys
from pathlib import Path

from server import CLEAN

EXAMPLE = Path(__file__).parent.parent / "examples" / "two_services"


def test_two_services() -> None:
    (command,) = re.findall(r"^    python (\S+)", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, command], cwd=EXAMPLE.parent.parent, env=CLEAN, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    # As the ledger says; run.py itself compares them with what was asked.
    assert rows[1] == ["acme", "chat", "pro", "5", "6000", "250", "0.00105000"]
    assert {row[0] for row in rows[1:6]} == {"acme", "globex", "initech"}
    assert ["acme:", "0.00455000", "USD"] in rows
    assert done.stdout.endswith("checked: every call is charged to who asked for it, to the last decimal\n")
