"""Requests that a WSGI application is asked: Flask and Django by themselves, others by `tallystick.wsgi`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tallystick.collectors.carriers.incoming import INCOMING, Head
from tallystick.collectors.scope import anything_arrived, arrived

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def call(wrapped: Application, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[bytes]:
    """Around an application: `(environ, start_response)`."""
    environ = args[0] if args else kwargs["environ"]
    attributes = INCOMING.of(lambda: head(environ))
    if not attributes and not anything_arrived():
        return wrapped(*args, **kwargs)
    with arrived(attributes):
        answer = wrapped(*args, **kwargs)
    return _Answer(attributes, answer) if _is_made_later(answer, environ) else answer


def wsgi(application: Application) -> Application:
    """`application`, handling each request with the scope that it brings. For frameworks that aren't known."""

    def handled(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return call(application, None, (environ, start_response), {})

    return handled


def head(environ: Mapping[str, Any]) -> Head:
    def header(name: str) -> str:
        return _text(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    path = _text(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    return Head(header, path, environ.get("QUERY_STRING", ""), environ.get("REMOTE_ADDR"))


def _text(value: str) -> str:
    """PEP 3333: bytes as if they were latin-1."""
    return value if value.isascii() else value.encode("latin-1", "replace").decode(errors="replace")


def _is_made_later(answer: object, environ: Mapping[str, Any]) -> bool:
    """Whether the application's code may run while the server sends the answer."""
    if hasattr(answer, "__len__") or getattr(answer, "streaming", True) is False:
        return False
    # The server knows its own wrapper of a file, and sends the file without reading it.
    wrapper = environ.get("wsgi.file_wrapper")
    return not (isinstance(wrapper, type) and isinstance(answer, wrapper))


class _Answer:
    """A streamed answer, each part of which is made with the request's scope."""

    def __init__(self, attributes: Mapping[str, str], answer: Iterable[bytes]) -> None:
        self._attributes = attributes
        self._answer = answer
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with arrived(self._attributes):
            if self._parts is None:
                self._parts = iter(self._answer)
            return next(self._parts)

    def close(self) -> None:
        close = getattr(self._answer, "close", None)
        if close is not None:
            with arrived(self._attributes):
                close()
