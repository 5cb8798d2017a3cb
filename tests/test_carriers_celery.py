"""A task is run in the scope in which it was called: a real worker, with the file system as its broker."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from carried import environment, run

APP = """
import json, os
import tallystick.auto, tallystick
import celery
from tallystick.collectors.scope import attribution

here = os.environ["HERE"]
app = celery.Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={"data_folder_in": f"{here}/queue", "data_folder_out": f"{here}/queue",
                              "control_folder": f"{here}/control", "polling_interval": 0.02},
    worker_hijack_root_logger=False, task_ignore_result=True, worker_concurrency=1,
)

def tell(name):
    with open(f"{here}/told", "a") as told:
        told.write(json.dumps([name, attribution()]) + "\\n")

@app.task
def plain(name):
    tell(name)

@app.task
def failing(name):
    tell(name)
    raise KeyError("the application's own")

@app.task
def calling(name):
    tell(name)
    with tallystick.scope(feature="inner"):
        plain.delay(name + " of a task")
        plain.apply(args=[name + " in place"])

@app.task(bind=True, max_retries=1)
def again(self, name):
    tell(name)
    if not self.request.retries:
        raise self.retry(countdown=0)
"""

CALLS = """
with tallystick.scope(customer="acmé", tier="x y"):
    calling.delay("calling")
    failing.delay("failing")
    again.delay("again")
    plain.apply_async(["by hand"], headers={"baggage": "color=red,tallystick.customer=given"})
    (plain.si("first of a chain") | plain.si("second of a chain")).delay()
plain.delay("outside")
"""

CAME = {"tallystick.customer": "acmé", "tallystick.tag.tier": "x y"}


def told(here: Path, count: int) -> list[list[Any]]:
    """What the tasks told, once there are so many."""
    deadline = time.monotonic() + 60
    lines: list[str] = []
    while len(lines) < count and time.monotonic() < deadline:
        time.sleep(0.05)
        lines = (here / "told").read_text().splitlines() if (here / "told").exists() else []
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_real_worker(tmp_path: Path, pool: str) -> None:
    (tmp_path / "tasks.py").write_text(APP)
    for folder in ("queue", "control"):
        (tmp_path / folder).mkdir()
    environ = environment(HERE=str(tmp_path), PYTHONPATH=str(tmp_path), C_FORCE_ROOT="1")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", pool, "--loglevel", "ERROR", "--without-mingle"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [*command, "--without-gossip", "--without-heartbeat"], env=environ, stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        run("from tasks import *\n" + CALLS + "\nprint(0)", HERE=str(tmp_path), PYTHONPATH=str(tmp_path))
        found = told(tmp_path, 10)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    log_text = (tmp_path / "log").read_text()
    assert sorted(found) == sorted([
        ["calling", CAME],
        ["calling of a task", CAME | {"tallystick.feature": "inner"}],
        ["calling in place", CAME | {"tallystick.feature": "inner"}],
        ["failing", CAME],
        ["again", CAME],
        ["again", CAME],
        ["by hand", CAME | {"tallystick.customer": "given"}],
        ["first of a chain", CAME],
        ["second of a chain", CAME],
        ["outside", {}],
    ]), log_text  # fmt: skip
    assert "tallystick:" not in log_text


def test_a_worker_that_trusts_nobody_and_a_caller_that_tells_nobody(tmp_path: Path) -> None:
    """Without a broker: the message as it is published, and a task run from one."""
    script = """
import json
import tallystick.auto, tallystick
import celery, kombu
from celery.app.trace import build_tracer
from tallystick.collectors.scope import attribution
app = celery.Celery("tasks", broker="memory://")
seen = []

@app.task
def plain():
    seen.append(attribution())

with tallystick.scope(customer="acme"):
    plain.delay()
    with app.connection() as connection:
        message = connection.SimpleQueue("celery").get(timeout=5)
        # Whatever else uses kombu is left alone.
        kombu.Producer(connection).publish({}, routing_key="other", headers={"mine": 1}, declare=[kombu.Queue("other")])
        other = connection.SimpleQueue("other").get(timeout=5)
build_tracer(plain.name, plain, app=app)("id", (), {}, {**message.headers, "baggage": "tallystick.customer=acme"})
seen.append(attribution())
print(json.dumps([message.headers.get("baggage"), other.headers, seen]))
"""
    assert run(script) == ["tallystick.customer=acme", {"mine": 1}, [{"tallystick.customer": "acme"}, {}]]
    off = run(script, TALLYSTICK_PROPAGATE_TO="off", TALLYSTICK_TRUST_BAGGAGE="none")
    assert off == [None, {"mine": 1}, [{}, {}]]
