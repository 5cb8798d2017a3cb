"""Forks and children: each call arrives once, from the process that made it, however that process ends."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_collector import service

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# A minute: nothing leaves before it is asked to, or the process ends.
LATE = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "TALLYSTICK_STRICT": "1"}

CALL = """
import os, sys, threading
import tallystick.auto, tallystick, openai

def call(who):
    with tallystick.scope(customer=who), openai.OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0) as gpt:
        gpt.chat.completions.create(model="gpt-lab", messages=[{"role": "user", "content": "x"}])
"""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def by(receiver: SpanReceiver) -> Counter[object]:
    """Spans by customer, each a call's own."""
    assert len({(span.trace_id, span.span_id) for span in receiver.spans}) == len(receiver.spans), "none twice"
    return Counter(span.attributes["tallystick.customer"] for span in receiver.spans)


def test_forked_children(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        CALL
        + """
call("parent")
children = []
for number in range(3):
    if (child := os.fork()) == 0:
        assert tallystick.status().spans.waiting == 0, "what waits is the parent's"
        call(f"child {number}")
        if number == 0:
            sys.exit(0)
        if number == 1:
            os._exit(0 if tallystick.flush(10) else 1)
        if (grandchild := os.fork()) == 0:
            call("grandchild")
            sys.exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    children.append(child)
call("parent")
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
""",
        provider,
        receiver.url,
        **LATE,
    )
    assert done.stderr == ""
    assert by(receiver) == {"parent": 2, "child 0": 1, "child 1": 1, "child 2": 1, "grandchild": 1}
    assert len(receiver.headers) == 5, "one batch of each process"


def test_a_call_open_across_a_fork_is_the_parents(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        CALL
        + """
from opentelemetry import trace
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("chat", attributes={"gen_ai.request.model": "x", "tallystick.customer": "open"}):
    if (child := os.fork()) == 0:
        call("child")
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
        provider,
        receiver.url,
        **LATE,
    )
    assert done.stderr == ""
    assert by(receiver) == {"open": 1, "child": 1}


def test_forks_in_threads_while_spans_are_sent(provider: ProviderServer, receiver: SpanReceiver) -> None:
    """The first one while the thread of the queue imports what it sends with: a child must not wait for that module."""
    done = service(
        CALL
        + """
def fork(who):
    if (child := os.fork()) == 0:
        import requests, opentelemetry.exporter.otlp.proto.http.trace_exporter
        call(who)
        os._exit(0 if tallystick.flush(20) else 1)
    assert os.waitpid(child, 0)[1] == 0

for number in range(6):
    call(f"parent {number}")
    thread = threading.Thread(target=fork, args=(f"child {number}",))
    thread.start()
    call(f"beside {number}")
    thread.join()
""",
        provider,
        receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="1",
        TALLYSTICK_STRICT="1",
    )
    assert done.stderr == ""
    assert by(receiver) == {f"{who} {number}": 1 for who in ("parent", "child", "beside") for number in range(6)}


def test_what_is_sent_at_the_end_leaves_no_connection_open(provider: ProviderServer, receiver: SpanReceiver) -> None:
    """What was sent before had one, which ends before the last spans leave."""
    done = service(CALL + 'call("early"); assert tallystick.flush(20); call("late")', provider, receiver.url, **LATE)
    assert done.stderr == ""
    assert by(receiver) == {"early": 1, "late": 1}


CHILDREN = (
    CALL
    + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(who):
    call(who)
    if who.endswith("1"):
        sys.exit(3)

if __name__ == "__main__":
    call("parent")
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        children = [context.Process(target=work, args=(f"{method} {number}",)) for number in range(2)]
        [child.start() for child in children]
        [child.join() for child in children]
        assert [child.exitcode for child in children] == [0, 3]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(call, ["executor"] * 4))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(call, ["pool"] * 4)
        pool.close()
        pool.join()
"""
)


def test_children_of_multiprocessing(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    """Forked ones end by `os._exit`, without `atexit`."""
    script = tmp_path / "script.py"
    script.write_text(CHILDREN)
    done = service(f"import runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')", provider, receiver.url, **LATE)
    assert done.stderr == ""
    methods = {f"{method} {number}": 1 for method in ("fork", "spawn", "forkserver") for number in range(2)}
    assert by(receiver) == methods | {"parent": 1, "executor": 4, "pool": 4}
