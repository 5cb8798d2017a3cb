"""`tallystick tokens`."""

import json
import subprocess
import sys
from pathlib import Path

import vocabularies
from server import CLEAN, COMMAND

ALONE = {name: value for name, value in CLEAN.items() if name not in {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"}}


def tokens(*args: str, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    # A proxy that isn't there stands for a network that isn't.
    environ = ALONE | {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"} | env
    return subprocess.run(
        [*COMMAND, "tokens", *args], input=text, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_count_a_file_and_standard_input(tmp_path: Path) -> None:
    cache = str(vocabularies.directory())
    (tmp_path / "prompt.txt").write_text("How deep is the sea?")
    of_file = tokens("count", "--model", "gpt-4o", str(tmp_path / "prompt.txt"), TIKTOKEN_CACHE_DIR=cache)
    assert (of_file.returncode, of_file.stdout, of_file.stderr) == (0, "6 tokens\n", "")
    piped = tokens("count", "--model", "claude-sonnet-4-5", "--json", text="How deep is the sea?", TIKTOKEN_CACHE_DIR=cache)
    (row,) = json.loads(piped.stdout)
    assert (row["tokens"], row["source"], row["encoding"]) == (8, "estimate", "o200k_base")
    assert "claude" in row["note"]


def test_count_a_request() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "How deep is the sea?"}]})
    asked = ("count", "--model", "gpt-4o", "--request")
    done = tokens(*asked, text=body, TIKTOKEN_CACHE_DIR=str(vocabularies.directory()))
    assert (done.returncode, done.stdout) == (0, "13 tokens\n")
    for wrong, why in (("{", "isn't JSON"), ("[1]", "isn't a JSON object")):
        refused = tokens(*asked, text=wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert why in refused.stderr


def test_an_estimate_says_so(tmp_path: Path) -> None:
    done = tokens("count", "--model", "gpt-4o", text="How deep is the sea?", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "about 6 tokens\n")
    assert "tallystick tokens fetch" in done.stderr


def test_bytes_that_are_no_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"\xff\xfe odd")
    done = tokens("count", "--model", "gpt-4o", str(tmp_path / "odd.bin"), TIKTOKEN_CACHE_DIR=str(vocabularies.directory()))
    assert (done.returncode, done.stderr) == (0, "")


def test_fetch(tmp_path: Path) -> None:
    there = tokens("fetch", "--to", str(vocabularies.directory()))
    assert there.stdout == f"o200k_base\ncl100k_base\nexport TIKTOKEN_CACHE_DIR={vocabularies.directory()}\n"
    away = tokens("fetch", "--to", str(tmp_path / "new"))
    assert (away.returncode, away.stdout) == (1, "")
    assert "o200k_base can't be fetched" in away.stderr
    unknown = tokens("fetch", "o300k_base")
    assert unknown.returncode == 1
    assert "it knows" in unknown.stderr


def test_in_a_service_without_the_server() -> None:
    script = """
import sys
for name in ("httpx", "yaml", "chdb", "clickhouse_connect", "fastapi", "pydantic", "rich", "sqlalchemy"):
    sys.modules[name] = None
sys.argv = ["tallystick", "tokens", "count", "--model", "gpt-4o"]
from tallystick.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input="hello", env=ALONE, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "about 1 tokens\n"), done.stderr
