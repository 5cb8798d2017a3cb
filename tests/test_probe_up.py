"""Engines that are started: they answer, they end with whoever started them, and what is wrong with them is said."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
from llama import OPTIONS, entry, llama
from server import CLEAN, COMMAND
from xllamacpp.xllamacpp import CommonParams

from tallystick.probes.config import EngineEntry, Start
from tallystick.probes.engines import starting
from tallystick.probes.engines.generated_model import QUANTISATIONS, generated_gguf
from tallystick.probes.engines.llamacpp_options import BadOption, attribute, known_options, set_option
from tallystick.probes.engines.starting import StartFailed, started


def soon(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def gone(pid: int) -> bool:
    """The process has ended (or is a zombie, whose parent has yet to read how)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def other(engine: str, model: str = "m", **options: str | int | float | bool) -> EngineEntry:
    return EngineEntry.model_validate({"name": "x", "engine": engine, "start": {"model": model, "options": options}})


# Generated models


def test_quantisations_are_of_the_same_weights(tmp_path: Path) -> None:
    files = {name: generated_gguf(tmp_path, name) for name in ("F32", "Q8_0", "Q4_0")}
    assert tuple(files) == QUANTISATIONS
    sizes = [file.stat().st_size for file in files.values()]
    assert sizes[0] > 3 * sizes[1] > 5 * sizes[2]
    tensors = {name: {one.name: one for one in gguf.GGUFReader(file).tensors} for name, file in files.items()}
    exact = tensors["F32"]
    assert exact.keys() == tensors["Q8_0"].keys() == tensors["Q4_0"].keys()
    for name, most in (("Q8_0", 0.01), ("Q4_0", 0.15)):
        for key, tensor in tensors[name].items():
            if len(tensor.shape) == 1:
                assert np.array_equal(tensor.data, exact[key].data)
                continue
            assert tensor.tensor_type.name == name
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            error = np.linalg.norm(values - exact[key].data) / np.linalg.norm(exact[key].data)
            assert 0 < error < most, key


def test_a_generated_model_is_made_once_and_always_the_same(tmp_path: Path) -> None:
    first = generated_gguf(tmp_path / "a", "Q4_0")
    made = first.stat().st_mtime_ns
    assert generated_gguf(tmp_path / "a", "Q4_0").stat().st_mtime_ns == made
    assert generated_gguf(tmp_path / "b", "Q4_0").read_bytes() == first.read_bytes()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["generated-q4_0.gguf"]


# Options of llama.cpp


def test_every_option_is_one_of_the_library() -> None:
    for name in known_options():
        place, _ = attribute(name)
        holder: Any = CommonParams()
        for part in place.split("."):
            assert hasattr(holder, part), f"{name}: {place}"
            holder = getattr(holder, part)


def test_options_are_set() -> None:
    params = CommonParams()
    for name, value in {
        "ctx-size": "16384", "--parallel": "8", "threads_batch": "3", "cache-type-k": "q8_0", "flash-attn": "on", "split-mode": "none",
        "no-warmup": "true", "no-kv-offload": "true", "alias": "a,b", "rope-freq-scale": "0.5", "spec-type": "ngram-simple", "seed": "7",
    }.items():  # fmt: skip
        set_option(params, name, value)
    assert (params.n_ctx, params.n_parallel, params.cpuparams_batch.n_threads, params.sampling.seed) == (16384, 8, 3, 7)
    assert (params.cache_type_k.name, params.flash_attn_type.name) == ("GGML_TYPE_Q8_0", "LLAMA_FLASH_ATTN_TYPE_ENABLED")
    assert params.split_mode.name == "LLAMA_SPLIT_MODE_NONE"
    assert (params.warmup, params.no_kv_offload, params.model_alias, params.rope_freq_scale) == (False, True, {"a", "b"}, 0.5)
    assert [one.name for one in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"]
    set_option(params, "kv-offload", "on")
    assert params.no_kv_offload is False


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("paralel", "4", "has no option 'paralel' that can be set here; known: alias, batch-size"),
        ("parallel", "four", "option 'parallel' can't be 'four'"),
        ("warmup", "maybe", "true or false"),
        ("cache-type-v", "q9", "known: f32, f16,"),
        ("ctx-size", str(2**70), "option 'ctx-size' can't be"),
    ],
)
def test_wrong_options_are_said(name: str, value: str, said: str) -> None:
    with pytest.raises(BadOption, match="option") as raised:
        set_option(CommonParams(), name, value)
    assert said in str(raised.value)


# Starting and stopping


def test_an_engine_is_up_in_the_block_and_gone_after_it(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    with started(entry("Q4_0"), log, 60, models=tmp_path) as engine:
        assert httpx.get(f"{engine.url}/health", trust_env=False).json() == {"status": "ok"}
        assert engine.died() == ""
        assert engine.version.startswith("xllamacpp ")
        assert not gone(engine.pid)
    assert gone(engine.pid)
    assert log.read_text()
    assert [file.name for file in tmp_path.glob("*.gguf")] == ["generated-q4_0.gguf"]


def test_an_engine_that_dies_is_said_to_with_its_last_words() -> None:
    with llama() as engine:
        # It logs from a thread of its own, and may answer before it has written so.
        assert soon(lambda: "listening on" in engine.log.read_text(encoding="utf-8", errors="replace"))
        os.kill(engine.pid, signal.SIGKILL)
        assert soon(lambda: engine.died() != "")
        assert "llamacpp was killed by signal 9; the last lines of its log:\n  " in engine.died()
        assert "listening on" in engine.died()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_it_ends_with_the_probe_however_that_ends(name: str, tmp_path: Path) -> None:
    code = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from llama import llama
        with llama() as engine:
            print(engine.pid, flush=True)
            time.sleep(600)
    """
    probe = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=CLEAN)
    assert probe.stdout is not None
    pid = int(probe.stdout.readline())
    probe.send_signal(getattr(signal, name))
    assert soon(lambda: gone(pid))
    probe.stdout.close()
    probe.wait(60)


class Kept:
    """`command` in the shell, kept: its keeper, its process id and that of the child which it names on standard error."""

    def __init__(self, patience: float, command: str) -> None:
        words = [sys.executable, "-I", str(starting._KEPT), str(patience), "sh", "-c", command]
        pipe = subprocess.PIPE
        self.keeper = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        assert self.keeper.stderr is not None
        self.lifeline = self.keeper.stdin
        self.engine, self.child = int(self.keeper.stdout.readline()), int(self.keeper.stderr.readline())

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *error: object) -> None:
        for pid in (self.keeper.pid, self.engine, self.child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (self.keeper.stdin, self.keeper.stdout, self.keeper.stderr):
            assert stream is not None
            stream.close()
        self.keeper.wait()


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_children_end_too_and_those_that_refuse_are_killed(trap: str) -> None:
    with Kept(0.3, f"{trap}sleep 600 & echo $! >&2; wait; sleep 600") as kept:
        assert not gone(kept.engine)
        assert not gone(kept.child)
        kept.keeper.send_signal(signal.SIGTERM)  # as a service manager may; the engine is told by the lifeline alone
        kept.lifeline.close()
        assert soon(lambda: gone(kept.engine) and gone(kept.child))


def test_children_of_an_engine_that_ended_by_itself_end() -> None:
    with Kept(5, "sleep 600 & echo $! >&2; exit 7") as kept:
        assert kept.keeper.wait(60) == 7
        assert soon(lambda: gone(kept.child))


def failed(described: EngineEntry, tmp_path: Path, seconds: float = 60) -> StartFailed:
    with pytest.raises(StartFailed) as raised, started(described, tmp_path / "log", seconds):
        pass
    return raised.value


def test_what_cannot_be_started_is_said(tmp_path: Path) -> None:
    assert "ollama can't be started here, only llamacpp, vllm, transformers" in failed(other("ollama"), tmp_path).message
    assert "no option 'paralel'" in failed(other("llamacpp", "generated", paralel=4), tmp_path).message
    assert "a generated model is F32, Q8_0, Q4_0, not Q5" in failed(other("llamacpp", "generated:q5"), tmp_path).message
    error = failed(other("vllm", python=sys.executable), tmp_path)
    assert error.message == f"vllm can't be started: {sys.executable} has no package vllm"
    assert error.hint.startswith("pip install 'tallystick[vllm]', or name")
    assert failed(other("vllm", python="/no/python"), tmp_path).message == "/no/python can't be run: No such file or directory"
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartFailed) as raised,
        started(entry(), tmp_path / "log", 60, port=taken.getsockname()[1]),
    ):
        pass
    assert "can't be used: Address already in use" in raised.value.message
    assert not (tmp_path / "log").exists()
    error = failed(other("llamacpp", "/no/model.gguf"), tmp_path)
    assert error.message.startswith("llamacpp ended with exit code 1; the last lines of its log:\n")
    assert "failed to open GGUF file '/no/model.gguf' (No such file or directory)" in error.message
    assert "option 'ctx-size' can't be 'much'" in failed(other("llamacpp", "generated", **{"ctx-size": "much"}), tmp_path).message


def test_an_engine_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    error = failed(entry(), tmp_path, seconds=0.01)
    assert error.message.startswith("llamacpp did not answer within 0.01 seconds")
    assert "timeouts" in error.hint


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """One with packages `vllm` and `transformers`, which serve what they were started with."""
    serve = """
        import http.server, json, sys
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(sys.argv[1:]).encode())
        port = int(sys.argv[sys.argv.index("--port") + 1])
        http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
    libraries, programs = tmp_path / "lib", tmp_path / "bin"
    module = libraries / "vllm" / "entrypoints" / "openai" / "api_server.py"
    for folder in (module.parent, libraries / "transformers", programs):
        folder.mkdir(parents=True)
    module.write_text(textwrap.dedent(serve))
    python, command = programs / "python", programs / "transformers"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={libraries} exec {sys.executable} "$@"\n')
    command.write_text(f"#!{sys.executable}\n" + textwrap.dedent(serve))
    for file in (python, command):
        file.chmod(0o755)
    return python


def arguments(described: EngineEntry, tmp_path: Path) -> list[str]:
    with started(described, tmp_path / "log", 60) as engine:
        said: list[str] = httpx.get(engine.url, trust_env=False).json()
    assert engine.url.endswith(f":{said.pop(said.index('--port') + 1)}")
    return said


def test_command_lines(interpreter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "max_model_len": 4096,
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "python": str(interpreter),
    }
    described = EngineEntry(name="x", engine="vllm", model="mine", start=Start(model="Qwen/Qwen3-0.6B", options=options))
    assert arguments(described, tmp_path) == [
        "--model", "Qwen/Qwen3-0.6B", "--served-model-name", "mine", "--host", "127.0.0.1", "--port",
        "--max-model-len", "4096", "--enforce-eager", "--no-enable-prefix-caching",
    ]  # fmt: skip
    monkeypatch.setenv("TALLYSTICK_TRANSFORMERS_PYTHON", str(interpreter))
    assert arguments(other("transformers", "some/model"), tmp_path) == ["serve", "some/model", "--host", "127.0.0.1", "--port"]


# The command


def up(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, "probe", "up", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CLEAN
    )


def process_at(url: str) -> int:
    """Id of the engine that listens there."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if (
                b"tallystick.probes.engines.llamacpp_server" in words
                and url.rpartition(":")[2].encode() in words
                and b"-I" not in words
            ):
                return int(folder.name)
    raise AssertionError(f"no engine at {url}")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_up_until_told_to_stop(name: str) -> None:
    options = [f"--option={option}={json.dumps(value)}" for option, value in OPTIONS.items()]
    with up("llamacpp", "--model", "generated:Q4_0", *options) as process:
        assert process.stdout is not None
        ready, url = process.stdout.readline().split()
        assert ready == "ready"
        assert "tallystick probe run FILE" in process.stdout.readline()
        assert url in process.stdout.readline()
        assert httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"] == "generated-q4_0"
        pid = process_at(url)
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == 0
        assert gone(pid)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_up_says_that_its_engine_died() -> None:
    with up("llamacpp", "--model", "generated") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        os.kill(process_at(url), signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert process.stderr.read().startswith("error: llamacpp was killed by signal 9; the last lines of its log:")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["llamacpp", "--model", "generated", "--option", "paralel=4"], 1, "no option 'paralel'"),
        (["vllm", "--model", "generated"], 1, "pip install 'tallystick[vllm]'"),
        (["ollama", "--model", "m"], 2, "'ollama' is not one of"),
        (["llamacpp"], 2, "--model"),
        (["llamacpp", "--model", "generated", "--option", "=4"], 2, "has no name"),
    ],
)
def test_up_says_what_is_wrong(words: list[str], code: int, said: str) -> None:
    with up(*words) as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        assert said in errors
