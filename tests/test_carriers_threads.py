"""A scope reaches the threads and jobs that are started in it, and stays in none of them for the next."""

from carried import run

START = """
import asyncio, contextvars, json, threading
import tallystick.auto, tallystick
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
from tallystick.collectors.scope import arrived, attribution

def who():
    return attribution().get("tallystick.customer"), attribution().get("tallystick.feature")

def in_thread(make=threading.Thread, function=who):
    found = []
    thread = make(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
"""


def test_threads() -> None:
    found = run(
        START
        + """
class Own(threading.Thread):
    def run(self):
        self.found = who()

def failing():
    raise KeyError("the application's own")

reached = []
threading.excepthook = lambda args: reached.append([type(args.exc_value).__name__, who()[0]])
result = {"outside": in_thread()}
variable = contextvars.ContextVar("variable", default="default")
variable.set("set")
with tallystick.scope(customer="a", feature="f"):
    result["plain"] = in_thread()
    result["nested"] = in_thread(function=in_thread)
    def inner():
        with tallystick.scope(feature="mine"):
            return who()
    result["own scope"] = in_thread(function=inner)
    own = Own()
    own.start()
    own.join()
    result["subclass"] = own.found
    timer = threading.Timer(0, lambda: result.__setitem__("timer", who()))
    timer.start()
    timer.join()
    broken = threading.Thread(target=failing)
    broken.start()
    broken.join()
    result["other variables"] = in_thread(function=variable.get)
    with trace.get_tracer("x").start_as_current_span("parent"):
        result["span"] = in_thread(function=lambda: trace.get_current_span().get_span_context().is_valid)
    kept = threading.Thread(target=who)
    kept.start()
    kept.join()
    result["left"] = sorted(set(vars(kept)) - set(vars(threading.Thread())))
    twice = threading.Thread(target=who)
    twice.start()
    try:
        twice.start()
    except RuntimeError as error:
        result["twice"] = str(error)
with arrived({"tallystick.customer": "of a request"}):
    result["of a request"] = in_thread()
result["after"] = in_thread()
result["reached"] = reached
print(json.dumps(result))
"""
    )
    assert found == {
        "outside": [None, None],
        "plain": ["a", "f"],
        "nested": ["a", "f"],
        "own scope": ["a", "mine"],
        "subclass": ["a", "f"],
        "timer": ["a", "f"],
        "other variables": "default",
        "span": False,
        "left": [],
        "twice": "threads can only be started once",
        "of a request": ["of a request", None],
        "after": [None, None],
        "reached": [["KeyError", None]],
    }


def test_thread_pools() -> None:
    found = run(
        START
        + """
from multiprocessing.pool import ThreadPool

class Pool(ThreadPoolExecutor):
    # As LangChain's: each job in a context of its own.
    def submit(self, function, /, *args, **kwargs):
        return super().submit(contextvars.copy_context().run, function, *args, **kwargs)

def failing():
    raise KeyError("the application's own")

result = {}
for kind in (ThreadPoolExecutor, Pool):
    jobs = []
    # Its one thread is started in the first scope, and does all the jobs.
    with kind(max_workers=1) as pool:
        with tallystick.scope(customer="a"):
            jobs.append(pool.submit(who))
            jobs += [pool.submit(failing)]
            with tallystick.scope(feature="f"):
                jobs.append(pool.submit(who))
            mapped = pool.map(lambda number: (number, who()[0]), range(2))
        with tallystick.scope(customer="b"):
            jobs.append(pool.submit(lambda: (who(), in_thread())))
            jobs.append(pool.submit(lambda *args, **kwargs: (args, kwargs), 1, function=2, attributes=3))
        jobs.append(pool.submit(who))
        result[kind.__name__] = [
            type(job.exception()).__name__ if job.exception() else job.result() for job in jobs
        ] + [list(mapped)]

async def main():
    loop = asyncio.get_running_loop()
    with tallystick.scope(customer="a"):
        found = [await loop.run_in_executor(None, who), await asyncio.to_thread(who)]
    return found + [await loop.run_in_executor(None, who)]

result["asyncio"] = asyncio.run(main())
with tallystick.scope(customer="a"):
    pool = ThreadPool(1)
result["other pools"] = pool.apply(who)
pool.close()
print(json.dumps(result))
"""
    )
    jobs = [
        ["a", None],
        "KeyError",
        ["a", "f"],
        [["b", None], ["b", None]],
        [[1], {"function": 2, "attributes": 3}],
        [None, None],
    ]
    jobs.append([[0, "a"], [1, "a"]])
    assert found == {
        "ThreadPoolExecutor": jobs,
        "Pool": jobs,
        "asyncio": [["a", None], ["a", None], [None, None]],
        # A pool's threads are nobody's, and its jobs don't pass by anything that could know.
        "other pools": [None, None],
    }


def test_switched_off() -> None:
    found = run(
        START
        + """
with tallystick.scope(customer="a"):
    pool = ThreadPoolExecutor()
    print(json.dumps([in_thread(), pool.submit(who).result()]))
""",
        TALLYSTICK_SCOPE_IN_THREADS="false",
    )
    assert found == [[None, None], [None, None]]


def test_what_sends_spans_in_the_background_belongs_to_nobody() -> None:
    found = run(
        START
        + """
import tallystick.collectors.span_queue as queue
seen = []
connect = queue.SpanQueue._run
def run(self):
    seen.append(who())
    connect(self)
queue.SpanQueue._run = run
run.__module__ = queue.__name__
with tallystick.scope(customer="a"):
    with trace.get_tracer("x").start_as_current_span("chat m", attributes={"gen_ai.operation.name": "chat"}):
        pass
from tallystick.collectors.start import flush
flush(0.2)
print(json.dumps(seen))
"""
    )
    assert found == [[None, None]]
