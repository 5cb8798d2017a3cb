"""What a guard adds to a call, in microseconds of CPU: the decision, the reservation and its settlement, without the call itself.

.venv/bin/python benchmarks/guard.py
"""

import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import tallystick
from tallystick.collectors.calls.request import Request, Usage, gates
from tallystick.collectors.guard.budgets import Standing
from tallystick.collectors.guard.server import watched

USAGE = Usage(300, 0, 0, 0, 50, 0, "provider")
SCOPE = {"tallystick.customer": "acme", "tallystick.session": "s1"}
SHORT = [{"role": "user", "content": "How many notches has a tally stick? " * 4}]
LONG = [{"role": "user", "content": "How many notches has a tally stick? " * 20} for _ in range(20)]
BUDGETS = 1_000


def request(messages: Any, scope: dict[str, str] = SCOPE) -> Request:
    body = {"model": "gpt-4o-mini", "messages": messages, "max_completion_tokens": 100}
    return Request("openai", "chat", "gpt-4o-mini", body, False, "api.openai.com", scope)


def call(asked: Request) -> None:
    for ticket in [gate.admit(asked) for gate in gates]:
        if ticket is not None:
            ticket.settle(USAGE, None)


def measured(what: str, work: Callable[[], None], number: int = 2_000) -> None:
    best = min(timeit.repeat(work, number=number, repeat=7, timer=time.thread_time)) / number * 1e6
    print(f"{what:70} {best:8.1f} us")


def main() -> None:
    short, long = request(SHORT), request(LONG)
    with tallystick.breaker():
        pass
    measured("no guard", lambda: call(short))
    with tallystick.guard(max_tokens_per_call=1_000_000):
        measured("tokens a call, 1 message", lambda: call(short))
    with tallystick.guard(max_usd_per_call=1_000):
        measured("USD a call, 1 message", lambda: call(short))
    with tallystick.guard(max_usd_per_call=1_000, max_usd_per_session=1_000_000):
        measured("USD a call and a session, 1 message", lambda: call(short))
        measured("the same, 20 messages of 700 characters", lambda: call(long))
    with tallystick.guard(max_usd_per_session=Decimal("0.002")) as near:
        outside = request(LONG, {})

        def near_its_limit() -> None:
            call(outside)
            near._outside.spent["usd"] = Decimal(0)

        measured("near the limit, so counted, 20 messages of 700 characters", near_its_limit, 100)
    end = (datetime.now(UTC) + timedelta(days=9)).timestamp()
    watched().budgets.hear(
        tuple(
            Standing(
                f"b{n}", "usd", Decimal(10**9), {"customer": frozenset({f"c{n}" if n else "acme"})}, None, end, {}, Decimal(0)
            )
            for n in range(BUDGETS)
        ),
        0.0,
    )
    watched().poller.since = 0.0
    watched().poller._thread = True  # type: ignore[assignment] - nobody is asked
    with tallystick.guard(budget="*"):
        measured(f"all of {BUDGETS:,} budgets of the server, 1 message", lambda: call(short))
    with tallystick.breaker():
        measured("a breaker", lambda: call(short))


if __name__ == "__main__":
    main()
