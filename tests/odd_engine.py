"""An engine that answers as it is told to: a server of OpenAI's protocol with every fault that engines have.

    with OddEngine(stream(tokens=3, gap=0.01)) as engine:          # each request is answered so
    with OddEngine([refuse(429), stream()]) as engine:             # the first so, the others as the last says
    with OddEngine(lambda seen: stream(tokens=seen.number)) as engine:

`engine.url` is where it listens, `engine.seen` what it was asked. It also has /v1/models, /health and, if `metrics` is given, /metrics.
It runs in a thread; `python tests/odd_engine.py --tokens 100 --gap 0.02 [--first 0.1]` is one in a process of its own, which prints its URL.
"""

import argparse
import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple, Self

from tallystick.probes.runs import EngineFacts

MODEL = "odd"


class Do(Enum):
    """What an answer does in place of sending bytes."""

    HANG = "hang"
    """Nothing more, and the connection stays."""
    RESET = "reset"
    """The connection is reset, as by a process that dies."""
    CLOSE = "close"
    """It is closed, without the end that HTTP's chunks have."""


Step = bytes | float | Do
"""Bytes are written, a number is slept in seconds."""


class Seen(NamedTuple):
    """A request. number: from 0, of those for completions. connection: which one it came on, from 0."""

    number: int
    connection: int
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """`before` runs before the headers are sent, `steps` after. raw: the steps are all that is sent, and then the connection is closed."""

    steps: Sequence[Step] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[Step] = ()
    raw: bool = False


Script = Answer | Sequence[Answer] | Callable[[Seen], Answer]


def event(data: Any) -> bytes:
    """One event of a stream: bytes and str as they are, anything else as JSON."""
    said: bytes = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
    return b"data: " + said + b"\n\n"


DONE = event("[DONE]")


def chunk(
    content: str | None = None, *, finish: str | None = None, usage: Any = None, choices: bool = True, **delta: Any
) -> bytes:
    """A chunk of a chat; `delta` has further fields of it (role, reasoning_content, tool_calls)."""
    if content is not None:
        delta["content"] = content
    body: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    body["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}] if choices else []
    return event(body if usage is None else body | {"usage": usage})


def text_chunk(text: str, *, finish: str | None = None) -> bytes:
    """A chunk of a text completion."""
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice]})


def usage_chunk(prompt: int = 10, completion: int = 5, cached: int | None = None) -> bytes:
    """The last chunk of a stream that was asked for usage."""
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return chunk(usage=usage, choices=False)


def stream(
    tokens: int = 5,
    *,
    first: float = 0.0,
    gap: float = 0.0,
    role: bool = True,
    finish: str | None = "length",
    usage: bool = True,
    completion: int | None = None,
    done: bool = True,
) -> Answer:
    """A chat as it should be: the role at once, `tokens` chunks of a token each (the first after `first` s, then one each `gap` s), the end.

    completion: tokens that usage tells of, where it counts wrongly.
    """
    steps: list[Step] = [chunk("", role="assistant")] if role else []
    for number in range(tokens):
        steps += [gap if number else first, chunk("word ")]
    if finish:
        steps.append(chunk(finish=finish))
    if usage:
        steps.append(usage_chunk(completion=tokens if completion is None else completion))
    return Answer([*steps, DONE] if done else steps)


def refuse(status: int, message: str = "overloaded", **headers: str) -> Answer:
    """An error as OpenAI says it. headers: `Retry_After="2"`."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": status}}).encode()
    return Answer([body], status, "application/json", {name.replace("_", "-"): value for name, value in headers.items()})


def unprocessable(body: Mapping[str, Any], known: frozenset[str]) -> Answer | None:
    """FastAPI's 422 for fields of `body` that aren't `known`, which repeats what it was sent; None if all are."""
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": body[name]}
        for name in body
        if name not in known
    ]
    return Answer([json.dumps({"detail": detail}).encode()], 422, "application/json") if detail else None


class OddEngine:
    """fields: those that a request may have, None: any. at_once: requests that are answered at a time, None: all.

    unread_s: how long a request's body isn't read. models: as /v1/models names them. others: answers of further paths.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        at_once: int | None = None,
        fields: Sequence[str] | None = None,
        unread_s: float = 0.0,
        metrics: str | None = None,
        models: Sequence[str] = (MODEL,),
        others: Mapping[str, Answer] | None = None,
    ) -> None:
        self.script: Script = stream() if script is None else script
        self.seen: list[Seen] = []
        self.connections = 0
        self._fields = None if fields is None else frozenset(fields)
        listed = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in models]}).encode()
        self._others = {
            "/v1/models": Answer([listed], content_type="application/json"),
            "/health": Answer([b"{}"], content_type="application/json"),
            **({} if metrics is None else {"/metrics": Answer([metrics.encode()], content_type="text/plain")}),
            **(others or {}),
        }
        self._unread_s = unread_s
        self._turn = asyncio.Semaphore(at_once or 1_000_000)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="odd engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096, limit=1 << 24), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def facts(self, endpoint: str = "/v1/chat/completions") -> EngineFacts:
        """What preflight would have found out."""
        return EngineFacts("openai", self.url, MODEL, "", endpoint, (), False, True, None, None)

    def die(self) -> None:
        """All connections are reset, and there will be no more: the process was killed."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result()

    async def _die(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self.connections = self.connections, self.connections + 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer, connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        """False: the connection is at its end."""
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        _, target, _ = request.split(" ")
        path = target.partition("?")[0]
        length = int(headers.get("content-length", 0))
        if path in self._others:
            await reader.readexactly(length)
            return await self._answer(self._others[path], writer)
        if not path.endswith("/completions"):
            await reader.readexactly(length)
            return await self._answer(Answer([b'{"detail":"Not Found"}'], 404, "application/json"), writer)
        await asyncio.sleep(self._unread_s)
        body = json.loads(await reader.readexactly(length))
        seen = Seen(len(self.seen), connection, path, headers, body)
        self.seen.append(seen)
        async with self._turn:
            refusal = unprocessable(body, self._fields) if self._fields is not None else None
            answer = refusal or self._scripted(seen)
            if headers.get("connection") == "close":
                answer = replace(answer, headers={**answer.headers, "Connection": "close"})
                await self._answer(answer, writer)
                return False
            return await self._answer(answer, writer)

    def _scripted(self, seen: Seen) -> Answer:
        if isinstance(self.script, Answer):
            return self.script
        return self.script(seen) if callable(self.script) else self.script[min(seen.number, len(self.script) - 1)]

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        for step in answer.before:
            if not await self._step(step, writer, framed=False):
                return False
        if not answer.raw:
            head = [f"HTTP/1.1 {answer.status} Said", f"Content-Type: {answer.content_type}", "Transfer-Encoding: chunked"]
            head += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join([*head, "", ""]).encode())
        for step in answer.steps:
            if not await self._step(step, writer, framed=not answer.raw):
                return False
        if answer.raw:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _step(self, step: Step, writer: asyncio.StreamWriter, *, framed: bool) -> bool:
        if isinstance(step, bytes):
            if step:  # an empty chunk would be HTTP's end
                writer.write(b"%x\r\n%s\r\n" % (len(step), step) if framed else step)
                await writer.drain()
        elif isinstance(step, Do):
            if step is Do.HANG:
                await asyncio.sleep(3600)
            if step is Do.RESET:
                writer.transport.abort()
            return False
        elif step:
            await asyncio.sleep(step)
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--first", type=float, default=0.0)
    parser.add_argument("--gap", type=float, default=0.0)
    given = parser.parse_args()
    with OddEngine(stream(given.tokens, first=given.first, gap=given.gap)) as engine:
        print(engine.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
