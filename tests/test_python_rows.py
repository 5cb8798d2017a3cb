"""The benchmark's writer, which walks spans in Python, enters what the product's writer does: what is compared with is kept comparable."""

import re
import subprocess
import sys
from pathlib import Path

from server import CLEAN

PYTHON_ROWS = Path(__file__).parent.parent / "benchmarks" / "python_rows.py"


def test_it_enters_the_same_rows() -> None:
    done = subprocess.run(
        [sys.executable, str(PYTHON_ROWS), "--check"], capture_output=True, text=True, env=CLEAN, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^([\w-]+): (\d+) of (\d+) rows", done.stdout, flags=re.MULTILINE)
    assert len(found) > 10
    assert [line for line in found if line[1] != line[2]] == [], done.stdout
