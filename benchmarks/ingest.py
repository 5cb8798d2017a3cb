"""CPU of the whole server for each span, from OTLP/HTTP bytes to a stored, priced, deduplicated row; beside the same process with a
writer that takes spans through Python rows (python_rows.py), in the same run.

    python benchmarks/ingest.py [--spans 1000000] [--clients 175]

The server is a process of its own, its CPU and memory are the kernel's count of it, merges included (what runs on after the last
answer, until the engine is quiet, is counted too). Figures go to standard output.
"""

import argparse
import gzip
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

from traffic import payload

BATCH = 512
PLACE = pathlib.Path(sys.executable).parent
SERVERS = {
    "server": [str(PLACE / "tallystick"), "up", "--port", "0", "--grpc-port", "0", "--data"],
    "python rows": [sys.executable, str(pathlib.Path(__file__).with_name("python_rows.py"))],
}
"""What is compared, to be followed by a data directory."""

TICKS = os.sysconf("SC_CLK_TCK")

PARTS = """
import sys; from pathlib import Path; from tallystick.ingest.store import open_store, scalar
with open_store(Path(sys.argv[1])) as store:
    print(scalar(store.client(), "SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'ledger' AND active"))
"""


def cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def post(url: str, bodies: list[bytes], headers: dict[str, str]) -> None:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    for body in bodies:
        for _ in range(60):
            connection.request("POST", "/v1/traces", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                break
            if answer.status != 503:
                raise SystemExit(f"{answer.status} {text!r}")
            time.sleep(1)
        else:
            raise SystemExit(f"it takes nothing, for a minute now: {text!r}")


def sql(url: str, query: str) -> list[list[object]]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    connection.request("POST", "/v1/sql", json.dumps({"query": query}), {"Content-Type": "application/json"})
    return json.loads(connection.getresponse().read())["rows"]  # type: ignore[no-any-return]


def through_the_server(command: list[str], data: str, spans: int, clients: int, compressed: bool) -> dict[str, float]:
    server = subprocess.Popen([*command, data], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    url = server.stdout.readline().removeprefix("ready ").strip()
    headers = {"Content-Type": "application/x-protobuf"} | ({"Content-Encoding": "gzip"} if compressed else {})
    shares: list[list[bytes]] = [[] for _ in range(clients)]
    began_ns = time.time_ns() - 3600 * 10**9
    for number in range(spans // BATCH):
        # 20,000 spans a second, in the hour that has passed.
        body = payload(BATCH, number, began_ns + number * BATCH * 50_000)
        shares[number % clients].append(gzip.compress(body, 6) if compressed else body)
    post(url, [payload(BATCH, -1, began_ns)], headers | {"Content-Encoding": "identity"})  # models are priced at first sight
    time.sleep(1)
    cpu, wall = cpu_s(server.pid), time.monotonic()
    threads = [threading.Thread(target=post, args=(url, share, headers)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - wall
    busy = cpu_s(server.pid)
    while True:  # merges go on after the last answer
        time.sleep(2)
        if (now := cpu_s(server.pid)) - busy < 0.05:
            break
        busy = now
    rows = sql(url, "SELECT sum(calls), countIf(cost_usd IS NOT NULL) FROM charges")[0]
    result = {
        "spans": spans // BATCH * BATCH, "us_a_span": (busy - cpu) / (spans // BATCH * BATCH) * 1e6, "spans_a_s": spans / wall,
        "peak_mib": peak_mib(server.pid), "stored": int(str(rows[0])), "priced": int(str(rows[1])),
    }  # fmt: skip
    server.terminate()
    server.wait(60)
    parts = subprocess.run([sys.executable, "-c", PARTS, data], check=True, capture_output=True, text=True)
    size = float(parts.stdout)
    return result | {"bytes_a_span": size / result["stored"]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spans", type=int, default=1_000_000)
    options.add_argument("--clients", type=int, default=175)
    given = options.parse_args()
    results = {}
    for body in ("plain", "gzip"):
        for writer, command in SERVERS.items():
            with tempfile.TemporaryDirectory() as data:
                found = through_the_server(command, data, given.spans, given.clients, body == "gzip")
            results[writer, body] = found["us_a_span"]
            print(writer, body, {key: round(value, 1) for key, value in found.items()}, flush=True)
        ratio = results["python rows", body] / results["server", body]
        print(f"{body}: the server takes {ratio:.1f} times less CPU a span than the same process with Python rows", flush=True)


if __name__ == "__main__":
    main()
