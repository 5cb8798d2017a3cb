"""One request to an engine, and everything that was seen of it.

Nothing is tried again: a second attempt would hide the failure, and its time would be no request's. Nothing is followed or proxied, for what
is measured is the engine at this URL.
"""

import asyncio
import json
import os
import socket
import sys
import time
from typing import Final

import aiohttp

from tallystick.probes.client.answers import Answer, complaint
from tallystick.probes.client.sse import EventStream
from tallystick.probes.config import Timeouts
from tallystick.probes.records import Ask, Outcome, Record
from tallystick.probes.runs import EngineFacts

if sys.platform != "win32":
    import resource

KEEP_ALIVE_S: Final = 4
"""An idle connection is dropped before the engine does it: uvicorn's 5 s are the shortest. One that it closed just then would be a failure."""
AFTER_DONE_S: Final = 1
"""For the connection to come to its end after the stream has, so that the next request can use it."""
_MOST_REFUSAL: Final = 65_536
_DESCRIPTORS: Final = 65_536


def open_session() -> aiohttp.ClientSession:
    """For any number of requests at once, to be closed by the caller. A name is looked up once; no proxy, cookie or ~/.netrc is heeded."""
    _allow_connections()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=None)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def _allow_connections() -> None:
    """Each takes a file descriptor, of which a process has 1,024 unless it asks for more."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def send(
    session: aiohttp.ClientSession, facts: EngineFacts, ask: Ask, started_ns: int, *, timeouts: Timeouts, key: str | None
) -> Record:
    """Send `ask` now and read its answer to the end. started_ns: time.perf_counter_ns() at the start of the run, from which times count."""
    return await Request(facts, ask, started_ns, timeouts=timeouts, key=key).send(session)


class Request:
    """A request that can be called off while it is under way.

    started_ns: time.perf_counter_ns() at the start of the run, from which all times count. scheduled_ns: when it was due, from there.
    """

    def __init__(
        self,
        facts: EngineFacts,
        ask: Ask,
        started_ns: int,
        *,
        timeouts: Timeouts,
        key: str | None,
        scheduled_ns: int | None = None,
    ) -> None:
        self._url = facts.url + facts.endpoint
        self._keeps_connections = facts.keeps_connections
        self._ask = ask
        self._key = key
        self._scheduled_ns = scheduled_ns
        self._started_ns = started_ns
        self._timeouts = timeouts
        self._answer = Answer()
        self._sent_ns = 0
        self._last_ns: int | None = None
        self._headers_ns: int | None = None
        self._ended_ns: int | None = None
        self._status: int | None = None
        self._content_type = ""
        self._failure: tuple[Outcome, str] | None = None
        self._scope: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, session: aiohttp.ClientSession) -> Record:
        """However it goes, it ends in a Record; only the task's own cancellation leaves, and with nothing.

        A connection that must be made first is part of the time from `sent_ns`.
        """
        self._sent_ns = self._now()
        try:
            async with asyncio.timeout(None) as self._scope:
                if self._failure:
                    return self._record()
                self._look()
                await self._exchange(session)
        except Exception as error:
            self._broke(error)
        finally:
            self._scope = None
            if self._timer:
                self._timer.cancel()
        return self._record()

    def call_off(self) -> None:
        """It ends as CANCELLED as soon as the loop comes to it, with what was seen. It may not have begun yet, or have ended."""
        self._pull(Outcome.CANCELLED, "ended by the probe")

    def _now(self) -> int:
        return time.perf_counter_ns() - self._started_ns

    async def _exchange(self, session: aiohttp.ClientSession) -> None:
        # Compressed, events would wait for each other.
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if not self._keeps_connections:
            headers["Connection"] = "close"
        limits = aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect)
        async with session.post(
            self._url, data=self._ask.body, headers=headers, allow_redirects=False, timeout=limits
        ) as response:
            self._headers_ns = self._now()
            self._status = response.status
            self._content_type = response.content_type
            if response.status >= 400:
                await self._refused(response)
            elif response.status != 200:
                also = ", a redirection, which isn't followed" if response.status >= 300 else ""
                self._answer.failure = Outcome.GARBAGE, f"answered with status {response.status}{also}"
            else:
                await self._stream(response.content)

    async def _stream(self, content: aiohttp.StreamReader) -> None:
        stream, answer = EventStream(), self._answer
        while piece := await content.readany():
            at_ns = time.perf_counter_ns() - self._started_ns
            try:
                for data in stream.feed(piece):
                    if answer.take(data, at_ns):
                        self._came(at_ns)
            except ValueError as error:
                answer.failure = Outcome.GARBAGE, str(error)
            if answer.failure:
                return
            if answer.done and self._ended_ns is None:
                self._ended(at_ns)
        if self._ended_ns is None:
            self._ended_ns = self._now()
        if not answer.done and not answer.finish_reason:
            self._failure = Outcome.CUT_OFF, "the stream ended before it said so"

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        after = response.headers.get("Retry-After", "")
        status = f"status {response.status}" + (f", Retry-After: {after[:40]}" if after else "")
        self._answer.failure = Outcome.REFUSED, status  # whatever becomes of its body
        body = b""
        while len(body) < _MOST_REFUSAL and (piece := await response.content.readany()):
            body += piece
        try:
            words = complaint(json.loads(body))
        except (ValueError, RecursionError):
            return
        if words:
            self._answer.failure = Outcome.REFUSED, f"{status}: {words}"

    def _came(self, at_ns: int) -> None:
        first = self._last_ns is None
        self._last_ns = at_ns
        if first:
            self._look()

    def _ended(self, at_ns: int) -> None:
        self._ended_ns = at_ns
        if self._scope and not self._failure:
            self._scope.reschedule(asyncio.get_running_loop().time() + AFTER_DONE_S)

    def _look(self) -> None:
        """Whether a limit is passed, and when to look again. A timer that is moved with each token would cost more than one that looks back."""
        if self._timer:
            self._timer.cancel()
        limits, now_ns = self._timeouts, self._now()
        if self._last_ns is not None:
            left, words = (
                limits.between_tokens - (now_ns - self._last_ns) / 1e9,
                f"no further token within {limits.between_tokens:g} s",
            )
        else:
            left, words = limits.first_token - (now_ns - self._sent_ns) / 1e9, f"no first token within {limits.first_token:g} s"
        whole = limits.whole - (now_ns - self._sent_ns) / 1e9
        if whole < left:
            left, words = whole, f"not ended within {limits.whole:g} s"
        if left <= 0:
            self._pull(Outcome.TIMED_OUT, words)
        else:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)

    def _pull(self, outcome: Outcome, words: str) -> None:
        """End it, unless it has ended or is about to."""
        if self._failure is None and self._ended_ns is None:
            self._failure = outcome, words
            if self._scope:
                self._scope.reschedule(asyncio.get_running_loop().time())

    def _broke(self, error: Exception) -> None:
        """What an error of the connection makes of it, if nothing is known yet that makes more."""
        if self._failure or self._answer.done:
            return
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            self._failure = Outcome.TIMED_OUT, f"no connection within {self._timeouts.connect:g} s"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            self._failure = Outcome.UNREACHABLE, f"the certificate of {error.host} isn't valid"
        elif isinstance(error, aiohttp.ClientConnectorError):
            self._failure = Outcome.UNREACHABLE, f"no connection to {error.host}:{error.port}: {_reason(error.os_error)}"
        elif isinstance(error, aiohttp.ClientResponseError):
            self._failure = Outcome.GARBAGE, "what came isn't HTTP"
        elif isinstance(error, aiohttp.InvalidURL):
            self._failure = Outcome.UNREACHABLE, "the URL can't be used"
        else:
            when = "before an answer began" if self._headers_ns is None else "within the answer"
            self._failure = Outcome.CUT_OFF, f"the connection broke {when}: {_reason(error)}"

    def _verdict(self) -> tuple[Outcome, str]:
        answer = self._answer
        if answer.failure:
            return answer.failure
        if self._failure and self._failure[0] is not Outcome.CUT_OFF:
            return self._failure
        if (
            self._status == 200
            and not answer.chunks
            and not answer.done
            and (answer.events or self._content_type != "text/event-stream")
        ):
            return Outcome.GARBAGE, f"answered with {self._content_type}, in which no chunk of a completion was"
        if self._failure:
            return self._failure
        return (Outcome.OK, "") if answer.generated else (Outcome.EMPTY, "ended well, and brought nothing")

    def _record(self) -> Record:
        ask, answer = self._ask, self._answer
        outcome, words = self._verdict()
        return Record(
            number=ask.number,
            group=ask.group,
            warmup=ask.warmup,
            scheduled_ns=self._scheduled_ns,
            sent_ns=self._sent_ns,
            headers_ns=self._headers_ns,
            ended_ns=self._now() if self._ended_ns is None else self._ended_ns,
            events=tuple(answer.events),
            outcome=outcome,
            status=self._status,
            error=words.replace(self._key, "…") if self._key else words,
            finish_reason=answer.finish_reason,
            input_tokens=ask.input_tokens,
            output_tokens=ask.output_tokens,
            usage=answer.usage,
        )


def _reason(error: BaseException) -> str:
    """The system's words for it, or its kind; a message of its own could hold what was sent."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) else type(error).__name__
