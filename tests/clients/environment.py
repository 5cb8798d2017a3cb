"""The environments of clients: made when a test wants one, kept until its lock or pyproject.toml changes."""

import fcntl
import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
MADE: Final = ROOT / ".clients"
UV: Final = str(Path(sys.executable).parent / "uv")
PROJECT: Final = ROOT / "pyproject.toml"


def environments() -> dict[str, list[str]]:
    """Name → the packages that it is made for, as environments.toml has them."""
    table: dict[str, Any] = tomllib.loads((HERE / "environments.toml").read_text(encoding="utf-8"))
    return {name: list(one["packages"]) for name, one in table.items()}


def lock_of(name: str) -> Path:
    return HERE / "locks" / f"{name}.txt"


def python(name: str) -> Path:
    """The interpreter of environment `name`, which is made first where it isn't there as its lock says.

    It holds the lock's packages and this checkout, editable, without extras. Needs the package index the first time.
    """
    home = MADE / name
    interpreter = home / "bin" / "python"
    lock = lock_of(name)
    wanted = hashlib.sha256(lock.read_bytes() + PROJECT.read_bytes() + sys.version.encode()).hexdigest()
    made = home / "made-from"
    MADE.mkdir(exist_ok=True)
    with (MADE / f"{name}.lock").open("w") as held:
        # Workers of one test run want it at once.
        fcntl.flock(held, fcntl.LOCK_EX)
        if not made.is_file() or made.read_text() != wanted:
            _uv("venv", "--clear", "--python", sys.executable, str(home))
            _uv("pip", "sync", "--python", str(interpreter), str(lock))
            _uv("pip", "install", "--no-deps", "--python", str(interpreter), "--editable", str(ROOT))
            # A dependency that came since, and isn't in the lock: `make clients-lock`.
            _uv("pip", "check", "--python", str(interpreter))
            made.write_text(wanted)
    return interpreter


def lock(name: str) -> None:
    """Writes locks/NAME.txt anew: the newest of what the pinned packages and the base install need."""
    packages = "\n".join(environments()[name])
    compiled = subprocess.run(
        [
            UV,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
            "--no-annotate",
            "--no-header",
            str(PROJECT),
            "-",
        ],
        input=packages,
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode:
        raise RuntimeError(f"environment {name} can't be resolved: {compiled.stderr}")
    lock_of(name).write_text(compiled.stdout)


def _uv(*arguments: str) -> None:
    done = subprocess.run([UV, *arguments, "--quiet"], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)}: {done.stderr}")


if __name__ == "__main__":
    for one in sys.argv[1:] or environments():
        lock(one)
