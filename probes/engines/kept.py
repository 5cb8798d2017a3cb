"""An engine, run for as long as somebody wants it: python kept.py PATIENCE COMMAND …

Whoever starts it holds the other end of its standard input. When that closes, because they stop it or because they died, however they died, the
engine and all its children are ended: SIGTERM, and after so many seconds of patience SIGKILL. Prints the engine's process id; what the engine
prints goes to standard error. Ends with the engine's exit code. Runs by path, without the package, so that it costs next to nothing.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def _end(engine: "subprocess.Popen[bytes]", patience_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        # Alone first: it ends its children in its own order, and cleans up after them.
        engine.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.wait(patience_s)
        # Whatever is left of its group, the engine itself among it.
        os.killpg(engine.pid, signal.SIGKILL)


def _end_with(lifeline: int, engine: "subprocess.Popen[bytes]", patience_s: float) -> None:
    while os.read(lifeline, 1):
        pass
    _end(engine, patience_s)


def main() -> None:
    """Exits as the engine does."""
    patience_s, command = float(sys.argv[1]), sys.argv[2:]
    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)  # noqa: S603
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
    # Ctrl-C and a service manager's SIGTERM may reach the whole group; the order to end comes over the lifeline alone.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    print(engine.pid, flush=True)  # noqa: T201
    threading.Thread(target=_end_with, args=(0, engine, patience_s), daemon=True).start()
    code = engine.wait()
    # Children that outlive it hold ports and memory of a GPU.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
