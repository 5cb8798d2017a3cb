"""CPU of `tallystick receiver` for each span, from OTLP/HTTP bytes to Kafka's acknowledgement, beside what the same requests take of a process
whose sink takes them and does nothing: what is left is the way to Kafka.

    python benchmarks/receiver.py [--spans 1000000] [--clients 32]

The receiver is a process of its own, its CPU and memory are the kernel's count of it. The broker is a real one on the same machine (Java and
Maven are needed), its CPU isn't counted. Figures go to standard output.
"""

import argparse
import gzip
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))

from broker import Broker
from traffic import payload

from ingest import cpu_s, peak_mib, post  # noqa: TID251 benchmarks/ingest.py
from tallystick.ingest.topics import ensure_topics
from tallystick.schema.kafka import RECEIVED, Brokers

NOTHING = """
import sys
from concurrent.futures import Future
from pathlib import Path
import uvicorn
from fastapi import FastAPI
from tallystick.ingest.keys import KeyStore
from tallystick.ingest.payload import Limits, check_protobuf
from tallystick.ingest.receiver import Receiver, router
from tallystick.ingest.writer import Outcome
from tallystick.server.auth import Door
from tallystick.server.serving import listen, serve

class Nothing:
    check = staticmethod(check_protobuf)
    def submit(self, item):
        future = Future()
        future.set_result(Outcome())
        return future

listening = listen("127.0.0.1", 0)
app = FastAPI()
app.include_router(router(Receiver(Nothing(), Door(KeyStore(Path(sys.argv[1])), "127.0.0.1").sender, Limits())))
url = f"http://127.0.0.1:{listening.getsockname()[1]}"
serve(uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False), listening, url)
"""


def measured(command: list[str], bodies: list[bytes], batch: int, spans: int, clients: int, encoding: str) -> dict[str, float]:
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    url = server.stdout.readline().removeprefix("ready ").strip()
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": encoding}
    requests = spans // batch
    shares = [[bodies[number % len(bodies)] for number in range(client, requests, clients)] for client in range(clients)]
    post(url, bodies[:20], headers)
    time.sleep(1)
    cpu, wall = cpu_s(server.pid), time.monotonic()
    threads = [threading.Thread(target=post, args=(url, share, headers)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - wall
    result = {
        "us_a_span": (cpu_s(server.pid) - cpu) / (requests * batch) * 1e6,
        "spans_a_s": requests * batch / wall,
        "peak_mib": peak_mib(server.pid),
    }
    server.terminate()
    server.wait(60)
    return result


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spans", type=int, default=1_000_000)
    options.add_argument("--clients", type=int, default=32)
    given = options.parse_args()
    tallystick = str(pathlib.Path(sys.executable).parent / "tallystick")
    with tempfile.TemporaryDirectory() as place, Broker(pathlib.Path(place) / "kafka") as broker:
        ensure_topics(Brokers((broker.address,), {}), RECEIVED, "dead", partitions=12)
        kafka = [tallystick, "receiver", "--port", "0", "--grpc-port", "0", "--kafka", broker.address, "--data", f"{place}/data"]
        for batch in (512, 256):
            for encoding in ("identity", "gzip"):
                made = [payload(batch, number, time.time_ns()) for number in range(200)]
                bodies = made if encoding == "identity" else [gzip.compress(one, 6) for one in made]
                found = {
                    name: measured(command, bodies, batch, given.spans, given.clients, encoding)
                    for name, command in (("kafka", kafka), ("nothing", [sys.executable, "-c", NOTHING, f"{place}/keys"]))
                }
                for name, figures in found.items():
                    print(batch, encoding, name, {key: round(value, 1) for key, value in figures.items()}, flush=True)
                more = found["kafka"]["us_a_span"] - found["nothing"]["us_a_span"]
                print(f"{batch} spans a request, {encoding}: the way to Kafka takes {more:.1f} µs of CPU a span", flush=True)


if __name__ == "__main__":
    main()
