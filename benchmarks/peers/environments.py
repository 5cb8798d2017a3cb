"""The peers, each in an environment of its own in .peers/ of the checkout, installed once."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".peers"
VERSIONS = {"guidellm": "0.8.1", "aiperf": "0.13.0"}
"""vLLM's is in deploy/engines/requirements.txt."""


@cache
def engine_python() -> Path:
    """Of vLLM, which brings its benchmark along. Raises subprocess.CalledProcessError."""
    script = ROOT / "deploy" / "engines" / "environment.sh"
    return Path(subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


@cache
def command(name: str) -> Path:
    """The program of guidellm or aiperf. Raises subprocess.CalledProcessError."""
    folder, asked = FOLDER / name, f"{name}=={VERSIONS[name]}"
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != asked:
        print(f"installing {asked} into {folder.relative_to(ROOT)}", file=sys.stderr)
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        assert uv, "uv is missing: make setup"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", asked], check=True)
        installed.write_text(asked)
    return folder / "bin" / name
