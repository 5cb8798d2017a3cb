"""One POST to a webhook: to a permitted address, within a time and a size, without following anywhere.

httpcore rather than httpx: it lets the address be chosen where it is connected to, with TLS and `Host` still by name, and it doesn't log
URLs, which are secrets here. Proxies from the environment aren't used: they would resolve names out of our sight.
"""

import functools
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpcore
import httpx

from tallystick.alerts.channels import Refused, Retry
from tallystick.alerts.channels.addresses import ALLOW, BadAddress, Resolve, check_url, permitted, resolve

READ_AT_MOST: Final = 8_192
LONGEST_WAIT_S: Final = 86_400.0
MAY_PASS: Final = frozenset({408, 425, 429})


class _NoAnsweredHeaders(logging.Filter):
    """httpcore logs an answer's headers at DEBUG, and the `Location` of a redirect repeats the URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "receive_response_headers" not in str(record.msg)


logging.getLogger("httpcore.http11").addFilter(_NoAnsweredHeaders())


@dataclass(frozen=True)
class Answer:
    """body: its start, as text."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people. By its body: services answer a bare `ok` as text/html, too."""
        return bool(re.match(r"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", self.body, re.IGNORECASE | re.DOTALL))

    @property
    def code(self) -> str | None:
        """The body where it is a bare code such as `channel_not_found`. Other bodies aren't told: they may repeat what was sent."""
        return self.body.strip() if re.fullmatch(r"[a-z]{1,24}(_[a-z]{1,24}){1,6}", self.body.strip()) else None

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds, also where it is a date; that is counted from the answer's own date."""
        told = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"\d{1,9}", told):
            return min(float(told), LONGEST_WAIT_S)
        until, now = _date(told), _date(self.headers.get("date", ""))
        if until is None:
            return None
        return min(max(0.0, (until - (now or datetime.now(UTC))).total_seconds()), LONGEST_WAIT_S)


@dataclass(frozen=True)
class Post:
    """How to POST. total_s: for all of it, however slowly the other side answers."""

    allow_private: bool
    connect_s: float = 5.0
    total_s: float = 10.0
    resolve: Resolve = resolve

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str], *, read_most: int = READ_AT_MOST) -> Answer:
        """What was answered, unless it is a redirect. Raises `Retry` where there was no whole answer, `Refused` for a URL or an address
        that isn't permitted."""
        try:
            check_url(url, allow_private=self.allow_private)
        except BadAddress as error:
            raise Refused(f"the URL is refused: {error}") from None
        backend = _Permitted(self.allow_private, self.resolve, self.connect_s, time.monotonic() + self.total_s)
        sent: list[tuple[str | bytes, str | bytes]] = [
            ("Host", httpx.URL(url).netloc),
            ("User-Agent", "tallystick"),
            *headers.items(),
        ]
        timeouts = {"connect": self.connect_s, "read": self.total_s, "write": self.total_s, "pool": self.total_s}
        try:
            with (
                httpcore.ConnectionPool(ssl_context=_trusted(), network_backend=backend) as pool,
                pool.stream("POST", _target(url), headers=sent, content=body, extensions={"timeout": timeouts}) as response,
            ):
                answer = Answer(response.status, _headers(response.headers), _start(response.iter_stream(), read_most))
        except httpcore.TimeoutException:
            raise Retry(f"no answer within {self.total_s:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Retry(_why(error)) from None
        if 300 <= answer.status < 400:
            raise Refused(
                f"it answers with a redirect ({answer.status}), and those aren't followed: put the final URL in the configuration"
            )
        return answer


def check(answer: Answer, advice: Mapping[str, str] | None = None) -> None:
    """Nothing for a 2xx that isn't a page, else `Retry` or `Refused`. advice: what to do about a code that a body or a status is."""
    page = ", with a web page" if answer.is_page else ""
    told = f"it answered {answer.status}{page}" + (f" {answer.code}" if answer.code else "")
    if answer.status in MAY_PASS or answer.status >= 500:
        raise Retry(told, answer.retry_after_s)
    if answer.is_page and answer.status < 300:
        raise Refused(f"{told}, which no webhook does: check the URL, and whether a login page or a proxy stands before it")
    if answer.status >= 300 or answer.status < 200:
        do = (
            (advice or {}).get(answer.code or "")
            or (advice or {}).get(str(answer.status))
            or DO.get(answer.status, "check the URL")
        )
        raise Refused(f"{told}: {do}")


DO: Final = {
    400: "it didn't accept the message's form; check that the channel's type fits the URL",
    401: "the URL or its secret isn't valid any more; make a new one",
    403: "it doesn't let this sender post; check the URL and its permissions",
    404: "nothing is at this URL any more; make a new one",
    410: "the URL was revoked; make a new one",
    413: "the message is too large for it",
}


class _Permitted(httpcore.NetworkBackend):
    """Resolves a name once, connects to a permitted one of its addresses, and ends everything at one time."""

    def __init__(self, allow_private: bool, find: Resolve, connect_s: float, ends: float) -> None:
        self._allow_private = allow_private
        self._find = find
        self._connect_s = connect_s
        self._ends = ends
        self._tcp = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        until = min(self._ends, time.monotonic() + self._connect_s)
        addresses = list(dict.fromkeys(self._addresses(host, port, until)))
        able = [address for address in addresses if permitted(address, allow_private=self._allow_private)]
        if addresses and not able:
            raise Refused(f"its host has a private address; set {ALLOW} if webhooks may reach those")
        failed: httpcore.NetworkError | httpcore.TimeoutException = httpcore.ConnectError("no address")
        for tried, address in enumerate(able):
            left = (until - time.monotonic()) / (len(able) - tried)
            if left <= 0:
                raise httpcore.ConnectTimeout
            try:
                return _Timed(self._tcp.connect_tcp(address, port, timeout=left), self._ends)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failed = error
        raise failed

    def _addresses(self, host: str, port: int, until: float) -> list[str]:
        """In a thread of its own, as the system's resolver knows no timeout."""
        found: list[str] = []
        failed: list[OSError | UnicodeError] = []

        def find() -> None:
            try:
                found.extend(self._find(host, port))
            except (OSError, UnicodeError) as error:
                failed.append(error)

        thread = threading.Thread(target=find, daemon=True)
        thread.start()
        thread.join(max(0.0, until - time.monotonic()))
        if failed:
            raise httpcore.ConnectError from failed[0]
        if thread.is_alive():
            raise httpcore.ConnectTimeout
        return found


class _Timed(httpcore.NetworkStream):
    """A stream on which nothing lasts beyond `ends`: a timeout for each read wouldn't end with a server that drips."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self._stream = stream
        self._ends = ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._left(httpcore.ConnectTimeout)), self._ends)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)

    def _left(self, over: Callable[[], httpcore.TimeoutException]) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise over()
        return left


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Certifi's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name; reading them takes some 20 ms."""
    return httpx.create_ssl_context()


def _target(url: str) -> httpcore.URL:
    parts = httpx.URL(url)
    return httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("ascii", "replace").lower(): value.decode("latin-1") for name, value in raw}


def _start(stream: Iterable[bytes], most: int) -> str:
    read = b""
    for part in stream:
        read += part
        if len(read) >= most:
            break
    return read[:most].decode("utf-8", "replace")


def _date(told: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(told)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _why(error: BaseException) -> str:
    """Why there is no answer, without the host: hosts of webhooks are told by nobody."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its TLS certificate isn't valid: {seen.verify_message.partition(',')[0].lower()}"
        if isinstance(seen, ssl.SSLError):
            return "no TLS connection"
        if isinstance(seen, (socket.gaierror, UnicodeError)):
            return "its name has no address"
        if isinstance(seen, ConnectionRefusedError):
            return "the connection was refused"
        seen = seen.__cause__ or seen.__context__
    return "no connection, or one that broke off"
