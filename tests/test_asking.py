"""Queries on the server end with their clients, and a few run at one time."""

import socket
from collections.abc import Callable, MutableMapping
from typing import Any

import anyio
import pytest
from server import Server
from starlette.requests import ClientDisconnect, Request

from tallystick.attribution.user_sql import READER_SETTINGS, BadQuery, checked, result
from tallystick.ingest.store import Store, scalar
from tallystick.server.asking import Asking

ENDLESS = "SELECT count() FROM numbers(1000000000000)"


class Leaving:
    """A client that goes away when told."""

    def __init__(self) -> None:
        self.gone = anyio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        return Request({"type": "http"}, self.receive)


def endless(store: Store, ended: list[str]) -> Callable[[str], None]:
    def work(mark: str) -> None:
        with store.reader("acme", {**READER_SETTINGS, "max_execution_time": 300}) as reader:
            try:
                result(reader, checked(reader, ENDLESS, None), mark)
            except BadQuery as error:
                ended.append(error.message)
                raise

    return work


def running(store: Store) -> int:
    return int(scalar(store.client(), "SELECT count() FROM system.processes WHERE query LIKE '/* asked %'"))


def test_a_query_ends_when_its_client_goes_away(chdb_store: Store) -> None:
    ended: list[str] = []

    async def main() -> None:
        leaving = Leaving()

        async def leave() -> None:
            while not await anyio.to_thread.run_sync(running, chdb_store):
                await anyio.sleep(0.01)
            leaving.gone.set()

        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            with pytest.raises(ClientDisconnect):
                await Asking(chdb_store).ask(leaving.request(), endless(chdb_store, ended))

    anyio.run(main)
    assert ended == ["The engine couldn't run the query (QUERY_WAS_CANCELLED)."]
    assert running(chdb_store) == 0


def test_a_query_whose_client_has_gone_does_not_begin(chdb_store: Store) -> None:
    began: list[str] = []

    async def main() -> None:
        asking, first, second = Asking(chdb_store), Leaving(), Leaving()
        first_ended: list[str] = []

        async def fill() -> None:
            with pytest.raises(ClientDisconnect):
                await asking.ask(first.request(), endless(chdb_store, first_ended))

        async def wait() -> None:
            with pytest.raises(ClientDisconnect):
                await asking.ask(second.request(), began.append)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(fill)
            while await anyio.to_thread.run_sync(running, chdb_store) < 3:
                await anyio.sleep(0.01)
            group.start_soon(wait)
            second.gone.set()
            await anyio.sleep(0.05)
            first.gone.set()

    anyio.run(main)
    assert began == []


def test_what_work_answers_and_raises(chdb_store: Store) -> None:
    async def main() -> None:
        asking, staying = Asking(chdb_store), Leaving()
        assert (await asking.ask(staying.request(), lambda mark: mark)).startswith("asked ")
        assert await asking.read(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await asking.ask(staying.request(), lambda mark: 1 // 0)

    anyio.run(main)


def hang_up(server: Server, key: str, path: str, body: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.mark.parametrize("path", ["/v1/sql", "/v1/sql?format=parquet", "/"])
def test_clients_that_hang_up_leave_room_for_others(server: Server, path: str) -> None:
    key = server.key("hanging")
    body = ENDLESS.encode() if path == "/" else f'{{"query": "{ENDLESS}"}}'.encode()
    for _ in range(9):
        hang_up(server, key, path, body)
    # Nine queries of 30 s by three readers at one time, did they run on to their limit.
    assert server.http.get("/", params={"query": "SELECT 7"}, auth=("", key), timeout=60).text == "7\n"
