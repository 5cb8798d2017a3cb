"""What stands between a library's stream object and the iterator inside of it, and between a response and its body."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from time import time_ns
from typing import TYPE_CHECKING, Any
from zlib import MAX_WBITS, decompressobj

import wrapt

from tallystick.collectors.calls.answers import Answer, from_json
from tallystick.collectors.calls.call import Call
from tallystick.collectors.failures import warn_once

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy


class _Dropped:
    """In the frame of a generator: the end of its call, also where it is dropped before its first step."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call.end()


def watched(inner: Iterator[Any], call: Call) -> Generator[Any, None, None]:
    """`inner`, passed through, with what its items tell of `call`. A generator, which costs the least a step, as the libraries' are."""
    return _watched(inner, call, call.asked_usage, _Dropped(call))


def async_watched(inner: AsyncIterator[Any], call: Call) -> AsyncGenerator[Any, None]:
    """`watched`, of an asynchronous stream."""
    return _async_watched(inner, call, call.asked_usage, _Dropped(call))


def _watched(inner: Iterator[Any], call: Call, hides: bool, _: _Dropped) -> Generator[Any, None, None]:
    see: Callable[[Any], None] = call.answer.see
    call.busy = True
    try:
        for chunk in inner:
            try:
                see(chunk)
            except Exception as error:
                see = _blind(call, error)
            if hides and is_extra(chunk, call):
                continue
            call.busy = False
            if call.cut or call.held:
                call.rest()
            yield chunk
            call.busy = True
    except GeneratorExit:
        raise
    except BaseException as error:
        call.end(error)
        raise
    call.end()


async def _async_watched(inner: AsyncIterator[Any], call: Call, hides: bool, _: _Dropped) -> AsyncGenerator[Any, None]:
    see: Callable[[Any], None] = call.answer.see
    call.busy = True
    try:
        async for chunk in inner:
            try:
                see(chunk)
            except Exception as error:
                see = _blind(call, error)
            if hides and is_extra(chunk, call):
                continue
            call.busy = False
            if call.cut or call.held:
                call.rest()
            yield chunk
            call.busy = True
    except GeneratorExit:
        # Here, in the task that drops it, not in one that the event loop makes later.
        if isinstance(inner, AsyncGenerator):
            await inner.aclose()
        raise
    except BaseException as error:
        call.end(error)
        raise
    call.end()


def _blind(call: Call, error: Exception) -> Callable[[Any], None]:
    """An answer of another shape: it goes on unseen."""
    warn_once(
        f"stream {call.library}", f"a stream of {call.library} couldn't be read: {type(error).__name__}: {str(error)[:200]}"
    )
    return _unseen


def _unseen(_: Any) -> None:
    """Instead of `Answer.see`."""


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


class Body(_Proxy):
    """The body of a response, which tells when it is closed: also by way of the response, past the stream object."""

    def __init__(self, body: Any, call: Call) -> None:
        super().__init__(body)
        self._self_call = call

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.__wrapped__)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.__wrapped__)

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

    async def __aiter__(self) -> AsyncIterator[bytes]:
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
