"""What stands between a library's stream object and the iterator inside of it, and between a response and its body."""

from collections.abc import AsyncIterator, Callable, Iterator
from time import time_ns
from typing import Any
from zlib import MAX_WBITS, decompressobj

import wrapt

from tallystick.collectors.calls.answers import Answer, from_json
from tallystick.collectors.calls.call import Call
from tallystick.collectors.failures import warn_once


class _Watched:
    """An iterator that is passed through. Other attributes (`close`, `send`, …) are those of the inner one."""

    __slots__ = ("__weakref__", "_call", "_inner", "_next", "_see")

    def __init__(self, inner: Any, call: Call) -> None:
        self._call = call
        self._inner = inner
        self._see: Callable[[Any], None] = call.answer.see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _failed(self, error: Exception) -> None:
        """An answer of another shape: it goes on unseen."""
        self._see = _unseen
        warn_once(
            f"stream {self._call.library}",
            f"a stream of {self._call.library} couldn't be read: {type(error).__name__}: {str(error)[:200]}",
        )

    def __del__(self) -> None:
        self._call.end()


class Watched(_Watched):
    """Of a synchronous stream."""

    __slots__ = ()

    def __init__(self, inner: Iterator[Any], call: Call) -> None:
        super().__init__(inner, call)
        self._next = inner.__next__

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        call = self._call
        call.busy = True
        try:
            chunk = self._next()
        except StopIteration:
            call.end()
            raise
        except BaseException as error:
            call.end(error)
            raise
        try:
            self._see(chunk)
        except Exception as error:
            self._failed(error)
        call.busy = False
        if call.interrupted:
            call.rest()
        return chunk


class AsyncWatched(_Watched):
    """Of an asynchronous stream."""

    __slots__ = ()

    def __init__(self, inner: AsyncIterator[Any], call: Call) -> None:
        super().__init__(inner, call)
        self._next = inner.__anext__

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        call.busy = True
        try:
            chunk = await self._next()
        except StopAsyncIteration:
            call.end()
            raise
        except BaseException as error:
            call.end(error)
            raise
        try:
            self._see(chunk)
        except Exception as error:
            self._failed(error)
        call.busy = False
        if call.interrupted:
            call.rest()
        return chunk


def _unseen(_: Any) -> None:
    """Instead of `Answer.see`."""


class Asked(Watched):
    """Keeps from the application what it would not have got, had usage not been asked for."""

    __slots__ = ()

    def __next__(self) -> Any:
        while is_extra(chunk := super().__next__(), self._call):
            pass
        return chunk


class AsyncAsked(AsyncWatched):
    """Keeps from the application what it would not have got, had usage not been asked for."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        while is_extra(chunk := await super().__anext__(), self._call):
            pass
        return chunk


def is_extra(chunk: Any, call: Call) -> bool:
    """Whether `chunk` is there for the usage only: the last, without choices. Takes `usage` off another one."""
    try:
        if chunk.choices == [] and (chunk.usage is not None or call.answer.complete):
            return True
        fields = chunk.__pydantic_fields_set__
        if "usage" in fields:
            chunk.usage = None
            fields.discard("usage")
    except Exception:  # whatever the provider or the application made of it, it isn't ours
        return False
    return False


class Body(wrapt.ObjectProxy):
    """The body of a response, which tells when it is closed: also by way of the response, past the stream object."""

    def __init__(self, body: Any, call: Call) -> None:
        super().__init__(body)
        self._self_call = call

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.__wrapped__)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.__wrapped__)  # type: ignore[no-any-return]

    def close(self) -> None:
        try:
            self.__wrapped__.close()
        finally:
            self._self_call.close()

    async def aclose(self) -> None:
        try:
            await self.__wrapped__.aclose()
        finally:
            self._self_call.close()


class RawBody(Body):
    """A body that the application reads by itself, or has parsed later: its bytes are kept, and read at the end."""

    def __init__(self, body: Any, call: Call, encoding: str) -> None:
        super().__init__(body, call)
        self._self_seen = Seen(encoding, call.answer.kept.take)
        call.unread = self._self_seen.read

    def __iter__(self) -> Iterator[bytes]:
        seen, call = self._self_seen, self._self_call
        try:
            for data in self.__wrapped__:
                seen.add(data)
                yield data
        except BaseException as error:
            call.end(error if not isinstance(error, GeneratorExit) else None)
            raise
        call.end()

    async def __aiter__(self) -> AsyncIterator[bytes]:  # type: ignore[override,misc]
        seen, call = self._self_seen, self._self_call
        try:
            async for data in self.__wrapped__:
                seen.add(data)
                yield data
        except BaseException as error:
            call.end(error if not isinstance(error, GeneratorExit) else None)
            raise
        call.end()

    def __del__(self) -> None:
        self._self_call.end()


class Seen:
    """The bytes of a raw body and when they came."""

    def __init__(self, encoding: str, room: Callable[[int], bool]) -> None:
        self._encoding = encoding
        self._room = room
        self._pieces: list[tuple[int, bytes]] = []
        self._whole = True

    def add(self, data: bytes) -> None:
        # What lacks a piece isn't read: of a later one it isn't known where an event begins.
        self._whole = self._whole and self._room(len(data))
        if self._whole:
            self._pieces.append((time_ns(), data))

    def read(self, answer: Answer) -> None:
        """Server-sent events or one JSON object, of a body that is plain or compressed with gzip or deflate."""
        decode = _decoder(self._encoding)
        if decode is None:
            return
        pieces = [(at, decode(data)) for at, data in self._pieces]
        self._pieces.clear()
        text = b"".join(data for _, data in pieces)
        if text.lstrip()[:1] == b"{":
            answer.whole(from_json(text))
            return
        line = b""
        for at, data in pieces:
            *lines, line = (line + data).split(b"\n")
            for one in lines:
                if one.startswith(b"data:") and (event := one[5:].strip()) != b"[DONE]":
                    known = answer.first_ns
                    answer.see(from_json(event))
                    if not known and answer.first_ns:
                        answer.first_ns = at


def _decoder(encoding: str) -> Callable[[bytes], bytes] | None:
    """None for what the standard library can't decode: brotli and zstd."""
    if encoding in ("", "identity"):
        return bytes
    return decompressobj(MAX_WBITS | 32).decompress if encoding in ("gzip", "deflate") else None
