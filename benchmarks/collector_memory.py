"""Memory of a service whose calls can't be sent anywhere: does it stay within the queue's bound?

    python benchmarks/collector_memory.py [--calls 100000] [--cases bare refused hanging kafka prompts]

Real OpenAI calls, answered from memory, with `tallystick.auto` imported; each case in a process of its own:

* bare: without the import, for comparison.
* refused: nothing listens where the server should be.
* hanging: the server takes connections and never answers.
* kafka: nothing listens where the broker should be.
* prompts: refused, and the instrumentation records prompts of 20 kB for another exporter.

RSS after 2,000 calls (all loaded), and after a fifth, half and all of the calls; what the collector says of them; milliseconds of the
slowest call, because a queue that is full must not hold up anyone.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

FIRST: Final = 2_000
CASES: Final = ("bare", "refused", "hanging", "kafka", "prompts")
ANSWER: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_767_225_600,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 5_000, "completion_tokens": 2, "total_tokens": 5_002},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description="Memory with the receiver down.")
    arguments.add_argument("--calls", type=int, default=100_000)
    arguments.add_argument("--case", choices=CASES, help="run this one in this process")
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="which, all by default")
    given = arguments.parse_args()
    if given.case:
        print(json.dumps(measured(given.case, given.calls)))
        return
    print(f"{given.calls:,} calls; RSS in MiB")
    print(f"{'':9}{f'{FIRST:,}':>8}{'a fifth':>9}{'half':>7}{'all':>7}{'growth':>8}{'kept':>8}{'dropped':>9}{'slowest ms':>12}")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        for case in given.cases:
            done = subprocess.run(
                [sys.executable, __file__, "--calls", str(given.calls), "--case", case],
                env=environment(case, hanging.getsockname()[1]),
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            found = json.loads(done.stdout)
            rss = found["rss"]
            row = "".join(f"{mib:{width}.0f}" for mib, width in zip(rss, (8, 9, 7, 7), strict=True))
            print(
                f"{case:9}{row}{rss[-1] - rss[0]:8.0f}{found['kept']:8,}{found['dropped']:9,}{found['slowest_ms']:12.1f}",
                flush=True,
            )


def environment(case: str, hanging: int) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "OTEL_"))}
    match case:
        case "hanging":
            return {**clean, "TALLYSTICK_URL": f"http://127.0.0.1:{hanging}"}
        case "kafka":
            return {**clean, "TALLYSTICK_KAFKA": "127.0.0.1:9"}
        case "prompts":
            return {
                **clean,
                "TALLYSTICK_URL": "http://127.0.0.1:9",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
            }
        case _:
            return {**clean, "TALLYSTICK_URL": "http://127.0.0.1:9"}


def measured(case: str, calls: int) -> dict[str, Any]:
    if case != "bare":
        import tallystick.auto  # noqa: F401
    import httpx2
    import openai

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=ANSWER)

    client = openai.OpenAI(api_key="none", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
    text = "x" * (20_000 if case == "prompts" else 100)
    stops = (FIRST, calls // 5, calls // 2, calls)
    rss: list[float] = []
    slowest = 0.0
    for number in range(1, calls + 1):
        began = time.perf_counter()
        # A text of its own each time, as real ones are: an equal one would be one object.
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": f"{number}{text}"}])
        if number > FIRST:
            slowest = max(slowest, time.perf_counter() - began)
        rss += [_rss_mib()] * stops.count(number)
    counts = None
    if case != "bare":
        from tallystick.collectors.start import status

        now = status()
        counts = now.spans if now else None
    kept, dropped = (counts.waiting, counts.dropped) if counts else (0, 0)
    return {"rss": rss, "kept": kept, "dropped": dropped, "slowest_ms": slowest * 1e3}


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
