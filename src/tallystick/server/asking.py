"""Queries of users on the server: a few at one time, and none for somebody who has gone."""

from collections.abc import Callable
from typing import Final, TypeVar
from uuid import uuid4

import anyio
from starlette.requests import ClientDisconnect, Request

from tallystick.ingest.store import Store

_READERS: Final = 3
"""Queries that run at one time; further ones wait."""

_KILL_S: Final = 0.2
"""Between attempts to stop a query that nobody waits for: it may not have begun yet."""

_T = TypeVar("_T")


class Asking:
    """Where queries of users run. Each bears a mark, by which it is stopped when its client goes away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers = anyio.CapacityLimiter(_READERS)

    async def ask(self, request: Request, work: Callable[[str], _T]) -> _T:
        """What `work` answers in a thread; it is given the mark for its queries. Raises what it raises.

        request: its body has been read; all that can still come is that the client goes away. Raises ClientDisconnect then.
        """
        mark = f"asked {uuid4().hex}"
        gone = anyio.Event()
        answers: list[_T] = []
        failures: list[Exception] = []

        def run() -> None:
            if gone.is_set():
                raise ClientDisconnect
            answers.append(work(mark))

        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_when_gone, request, mark, gone)
            try:
                await anyio.to_thread.run_sync(run, limiter=self._readers)
            except Exception as failure:
                failures.append(failure)
            group.cancel_scope.cancel()
        if gone.is_set():
            raise ClientDisconnect
        if failures:
            raise failures[0]
        return answers[0]

    async def read(self, work: Callable[[], _T]) -> _T:
        """What `work` answers in a thread, where it is too short to be stopped. Raises what it raises."""
        return await anyio.to_thread.run_sync(work, limiter=self._readers)

    async def _stop_when_gone(self, request: Request, mark: str, gone: anyio.Event) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()
        while True:
            await anyio.to_thread.run_sync(self._kill, mark)
            await anyio.sleep(_KILL_S)

    def _kill(self, mark: str) -> None:
        self._store.client().command(
            "KILL QUERY WHERE startsWith(query, {mark:String}) ASYNC", parameters={"mark": f"/* {mark} */"}
        )
