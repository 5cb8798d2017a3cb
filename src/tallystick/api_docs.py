"""`python -m tallystick.api_docs docs/api.md`: writes the table of routes and roles into the page, as a server of its own describes them."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tallystick.server.api_doc import table

_START: Final = "<!-- routes: made by `make docs` -->\n"
_END: Final = "<!-- end of routes -->\n"


def with_routes(page: str, document: dict[str, Any]) -> str:
    """The page with the present table between its two marks. document: OpenAPI."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}\n{table(document)}\n{_END}{after}"


def described() -> dict[str, Any]:
    """The OpenAPI document of a server that is started for it, on an empty directory."""
    import httpx

    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "tallystick.cli", "up", "--data", data, "--port", "0", "--grpc-port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:  # noqa: S603
            assert server.stdout is not None
            url = server.stdout.readline().split()[1]
            document: dict[str, Any] = httpx.get(f"{url}/openapi.json", trust_env=False).json()
            server.send_signal(signal.SIGTERM)
    return document


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_routes(path.read_text(encoding="utf-8"), described()), encoding="utf-8")
