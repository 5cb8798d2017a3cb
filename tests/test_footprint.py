"""What a server keeps in memory of the engine's library: not what only its start read, and nothing that can't be read again."""

import re
import sys
from pathlib import Path

import pytest
from otlp import request, span
from server import Server

from tallystick.server.footprint import never_written

LIBRARY = "/venv/site-packages/chdb/_chdb.abi3.so"


def mapping(place: str, mode: str, name: str, anonymous: int) -> str:
    return f"{place} {mode} 00000000 fe:00 1234                      {name}\nSize: 12 kB\nAnonymous: {anonymous:10} kB\nVmFlags: rd mr\n"


def test_only_the_library_and_only_what_is_the_files_still() -> None:
    smaps = "".join(
        [
            mapping("1000-2000", "r--p", LIBRARY, 0),
            mapping("2000-3000", "r-xp", LIBRARY, 0),
            # Linked into, and protected after that.
            mapping("3000-4000", "r--p", LIBRARY, 8),
            mapping("4000-5000", "rw-p", LIBRARY, 0),
            mapping("5000-6000", "r-xp", "/usr/lib/libc.so.6", 0),
            "6000-7000 rw-p 00000000 00:00 0 \nAnonymous: 0 kB\n",
        ]
    )
    assert list(never_written(smaps.splitlines(keepends=True))) == [(0x1000, 0x2000), (0x2000, 0x3000)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is given back")
def test_a_server_that_waits_keeps_little_of_the_library(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        found = re.search(r"RssFile:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
        assert found
        # 230 where it isn't given back.
        assert int(found[1]) < 120 << 10
        assert server.post(request(span("after"))).status_code == 200
        assert server.sql("SELECT count() AS calls FROM charges") == [{"calls": 1}]
