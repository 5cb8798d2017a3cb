"""A real vLLM, metered: its offline `LLM`, and its server with a client. Writes recorded/vllm.json and recorded/vllm-server.json.

    python tests/clients/record_vllm.py PYTHON MODEL

PYTHON: of an environment with vLLM and `pip install tallystick`; MODEL: a folder of a model that it can serve, with a chat template.
Not part of the tests: vLLM takes gigabytes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from server import Server, free_port

RECORDED: Final = Path(__file__).parent / "recorded"
COLUMNS: Final = (
    "feature, customer, calls, input_tokens, cache_read_tokens, output_tokens, ttft_ms, toUnixTimestamp64Nano(started_at) AS at"
)
ENGINE: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip

BEGIN: Final = """
import contextlib, json, os
metered = "TALLYSTICK_URL" in os.environ
if metered:
    import tallystick, tallystick.auto
def scope(name):
    return tallystick.scope(customer="acme", feature=name) if metered else contextlib.nullcontext()
def tell(name, tokens, cached, output, text):
    print(json.dumps([name, tokens, cached, output, text]), flush=True)
prompt = "abcd efgh " * 150
"""

OFFLINE: Final = (
    BEGIN
    + """
def main():
    from vllm import LLM, SamplingParams
    llm = LLM(MODEL, served_model_name="tiny", dtype="float32", enforce_eager=True, max_num_seqs=16, disable_log_stats=False)
    def told(name, outputs):
        for one in outputs:
            tell(name, len(one.prompt_token_ids), one.num_cached_tokens, sum(len(o.token_ids) for o in one.outputs), [o.text for o in one.outputs])
    few = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    with scope("generate"):
        told("generate", llm.generate([prompt], few, use_tqdm=False))
    with scope("cached"):
        told("cached", llm.generate([prompt], few, use_tqdm=False))
    with scope("batch"):
        told("batch", llm.generate(["one", "two words", prompt + "three"], few, use_tqdm=False))
    with scope("chat"):
        two = SamplingParams(max_tokens=4, n=2, seed=1, temperature=1, ignore_eos=True)
        told("chat", llm.chat([{"role": "user", "content": "hello"}], two, use_tqdm=False))
    with scope("enqueued"):
        llm.enqueue(["later"], few, use_tqdm=False)
    told("enqueued", llm.wait_for_completion(use_tqdm=False))
if __name__ == "__main__":
    main()
"""
)

CLIENT: Final = (
    BEGIN
    + """
import openai
client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
def ask(name, max_tokens=6, **more):
    return client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": name + prompt}], max_tokens=max_tokens, temperature=0, extra_body={"ignore_eos": True}, **more
    )
def told(name, usage, text):
    tell(name, usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens, text)
with scope("create"):
    answer = ask("create")
    told("create", answer.usage, answer.choices[0].message.content)
with scope("cached"):
    answer = ask("create")
    told("cached", answer.usage, answer.choices[0].message.content)
with scope("stream"):
    chunks = list(ask("stream", stream=True, stream_options={"include_usage": True}))
    told("stream", chunks[-1].usage, "".join(c.choices[0].delta.content or "" for c in chunks if c.choices))
with scope("stream_without_usage"):
    text = "".join(c.choices[0].delta.content or "" for c in ask("without", stream=True))
    known = ask("without").usage if not metered else None
    tell("stream_without_usage", known and known.prompt_tokens, 0, 6, text)
"""
)

REASONS: Final = {
    "ttft": "the engine's own span tells the usage, so it stands for the call; it doesn't say that the answer was streamed"
}


def told(script: str, python: str, env: dict[str, str], **names: str) -> list[list[Any]]:
    text = "\n".join([*(f"{name} = {value!r}" for name, value in names.items()), script])
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TALLYSTICK_", "OTEL_"))}
    # A file: vLLM starts its engine's process anew, from the main module.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "service.py")
        path.write_text(text, encoding="utf-8")
        done = subprocess.run([python, path], env=clean | ENGINE | env, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def cells(bare: list[list[Any]], metered: list[list[Any]], rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Scenario → check → cell, and why not."""
    table: dict[str, dict[str, str]] = {}
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(line[0] for line in metered):
        said = [line for line in metered if line[0] == name]
        without = [line for line in bare if line[0] == name]
        stored = sorted((r for r in rows if r["feature"] == name), key=lambda r: r["at"])
        want = sorted((w[1] if w[1] is not None else b[1], w[2] or 0, w[3]) for w, b in zip(said, without, strict=True))
        have = sorted(
            ((r["input_tokens"] or 0) + (r["cache_read_tokens"] or 0), r["cache_read_tokens"] or 0, r["output_tokens"] or 0)
            for r in stored
        )
        checks = {
            "tokens": [(w[0], w[2]) for w in want] == [(h[0], h[2]) for h in have],
            "cache": [w[1] for w in want] == [h[1] for h in have],
            "ttft": all(r["ttft_ms"] is not None for r in stored),
            "scope": all(r["customer"] == "acme" for r in stored),
            "one_call": sum(r["calls"] for r in stored) == len(said),
            "unchanged": [line[4] for line in said] == [line[4] for line in without],
        }
        table[name] = {check: "yes" if well else "no" for check, well in checks.items()}
        if not any(w[1] for w in want):
            table[name]["cache"] = "–"
        if not name.startswith("stream"):
            table[name]["ttft"] = "–"
        reasons |= {f"{name}.{check}": REASONS[check] for check, cell in table[name].items() if cell == "no" and check in REASONS}
        print(name, checks, want, have, file=sys.stderr)
    return table, reasons


def main(python: str, model: str) -> None:
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(*{d.version for d in m.distributions() if d.name in ('vllm', 'vllm-cpu')})"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    on = f"{time.strftime('%Y-%m-%d', time.gmtime())}, vLLM {version} on a CPU, a model of 26 million random weights, by tests/clients/record_vllm.py"
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder, "data")) as server:
        url = {"TALLYSTICK_URL": server.url}
        offline = cells(told(OFFLINE, python, {}, MODEL=model), told(OFFLINE, python, url, MODEL=model), _rows(server))
        write("vllm", "vLLM, offline `LLM`", version, {"vllm": "tallystick's own spans"}, *offline, on)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder, "data")) as server:
        port = free_port()
        command = [
            python,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            model,
            "--served-model-name",
            "tiny",
            "--host",
            "127.0.0.1",
        ]
        command += [
            "--port",
            str(port),
            "--dtype",
            "float32",
            "--enforce-eager",
            "--max-num-seqs",
            "16",
            "--enable-prompt-tokens-details",
        ]
        command += ["--otlp-traces-endpoint", f"{server.url}/v1/traces"]
        env = os.environ | ENGINE | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "vllm"}
        with Path(folder, "engine.log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as engine:
            try:
                _ready(f"http://127.0.0.1:{port}/health")
                names = {"URL": f"http://127.0.0.1:{port}"}
                metered = told(CLIENT, python, {"TALLYSTICK_URL": server.url}, **names)
                time.sleep(8)  # the engine sends its spans every five seconds
                rows = _rows(server)
                bare = told(CLIENT, python, {}, **names)
            finally:
                engine.terminate()
        table = cells(bare, metered, rows)
        write(
            "vllm-server", "vLLM, server and openai client", version, {"openai": "official", "vllm": "its own spans"}, *table, on
        )


def _ready(url: str) -> None:
    for _ in range(180):
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit("vLLM didn't start")


def _rows(server: Server) -> list[dict[str, Any]]:
    """What stands: calls without those that were voided."""
    return server.sql(
        f"SELECT {COLUMNS} FROM charges WHERE span_id NOT IN (SELECT span_id FROM charges WHERE entry = 'void') AND customer != ''"
    )


def write(
    name: str, client: str, version: str, by: dict[str, str], table: dict[str, Any], reasons: dict[str, str], on: str
) -> None:
    held = {"client": client, "version": version, "metered_by": by, "cells": table, "reasons": reasons, "recorded": on}
    (RECORDED / f"{name}.json").write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
