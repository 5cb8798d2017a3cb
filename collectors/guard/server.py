"""The server's side of guards: `GET /v1/guard` over HTTP, and which of this process' calls are in its answer."""

import os
from dataclasses import dataclass
from functools import cache

from tallystick.collectors import start
from tallystick.collectors.guard.budgets import Budgets
from tallystick.collectors.guard.polling import Answer, Fetch, Poller
from tallystick.collectors.settings import Settings, read

_TRACES = "/v1/traces"
_TIMEOUT_S = (5, 10)
"""To connect, and between bytes of the answer."""


def connected(settings: Settings) -> Fetch:
    """A function that asks the server that spans are sent to, with their key."""
    # In the thread that polls: it takes longer to import than all the rest.
    import netrc  # noqa: F401 - requests would, with its first request, when a fork no longer waits for imports

    import requests

    session = requests.Session()
    if settings.key:
        session.headers["Authorization"] = f"Bearer {settings.key}"
    url = settings.endpoint.removesuffix(_TRACES) + "/v1/guard"

    def fetch(etag: str) -> Answer:
        headers = {"If-None-Match": etag} if etag else {}
        got = session.get(url, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False)
        age = got.headers.get("Age", "")
        return Answer(got.status_code, got.content, got.headers.get("ETag", ""), float(age) if age.isdigit() else 0.0)

    return fetch


class Exported:
    """The queue of ended calls, as far as it is this process that exports them to the server itself."""

    def put_and_done(self) -> tuple[int, int] | None:
        status = start.status()
        if status is None or status.provider == "off" or status.server.startswith("kafka:"):
            return None
        done = status.spans.exported + status.spans.dropped
        return done + status.spans.waiting, done


@dataclass(frozen=True, slots=True)
class Watched:
    """Budgets of the server, and what keeps them up to date."""

    budgets: Budgets
    poller: Poller


@cache
def watched() -> Watched:
    """One for all guards of the process."""
    settings = read(os.environ)
    budgets = Budgets()
    return Watched(budgets, Poller(budgets, lambda: connected(settings), Exported(), settings.guard_poll_s))
