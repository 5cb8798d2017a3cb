"""One run of a probe in a process of its own, which ends with everything that it started."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_LOOK_S: Final = 0.2
"""Between two looks at a process."""

_GRACE_S: Final = 20.0
"""Which it has to stop its engines and to write what it measured; then it is killed."""

_MOST: Final = 1 << 20
"""Bytes of its output that are looked at: the last ones of its errors, the first ones of its answer."""


class Ended(NamedTuple):
    """code: its exit status; None where it was stopped, for the reason `why`. out: what it answered. errors: the last it said."""

    code: int | None
    why: str
    out: str
    errors: str


def measure(
    command: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout_s: float, stopped: Callable[[], str]
) -> Ended:
    """Run it until it ends, for `timeout_s` at most, or until `stopped` says why it is to end before. Raises OSError where it can't be started."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        # A session of its own: what is said to its group reaches all that it started, and Ctrl-C here doesn't.
        process = subprocess.Popen(  # noqa: S603
            command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
        until, why = time.monotonic() + timeout_s, ""
        try:
            while process.poll() is None and not why:
                why = stopped() or ("timeout" if time.monotonic() >= until else "")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
        finally:
            _end(process)
        code = process.returncode if not why else None
        return Ended(code, why, _text(out.fileno(), 0), _text(errors.fileno(), max(0, os.fstat(errors.fileno()).st_size - _MOST)))


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    # Its engines go with it, however it ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: int, start: int) -> str:
    return os.pread(file, _MOST, start).decode(errors="replace")
