"""One call on its way: who let it pass, what was seen of it, and its end."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span

from tallystick.collectors.calls.answers import ANSWERS, Answer
from tallystick.collectors.calls.kept import estimated, texts_in
from tallystick.collectors.calls.request import NOTHING, Refusal, Request, Ticket, Usage, gates, http_status
from tallystick.collectors.failures import contained, report, warn_once
from tallystick.collectors.scope import attribution

CURRENT: Final[ContextVar["Call | None"]] = ContextVar("tallystick-call", default=None)
"""The call that a client library is working on, in this task or thread."""

_MOST_OPEN: Final = 10_000
"""Calls whose span hasn't ended. One that never ends must not keep what was seen forever: beyond this the oldest are forgotten."""

_open: Final[dict[int, "Call"]] = {}
"""By span id."""

_LEAVES: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings", "completion", "responses", "messages"})

_ASKED: Final = ("system", "instructions", "messages", "input", "prompt", "contents", "tools", "toolConfig")
"""Members of a request that are input."""


def is_call(span: Span) -> bool:
    """Whether `span` is one of a single call of a model, as far as its attributes say at its start; not an agent's or a workflow's."""
    attributes = span.attributes or {}
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    if operation is not None:
        return operation in _LEAVES
    return attributes.get("openinference.span.kind") in ("LLM", "EMBEDDING")


def current() -> "Call | None":
    """The call that a client library is working on here and that has no span yet."""
    call = CURRENT.get()
    return call if call is not None and call.span_id == 0 else None


def of_span(span_id: int) -> "Call | None":
    """The call of a span that ends; asked for once."""
    return _open.pop(span_id, None)


class Call:
    """What the observer knows of one call. `end` may come from anywhere, also from the garbage collector, and counts once."""

    __slots__ = (
        "_tickets", "answer", "answered", "asked_usage", "attempts", "body", "busy", "cut", "ended", "error", "held", "library", "model", "operation",
        "raw", "replaced_model", "span_id", "streamed", "unread",
    )  # fmt: skip

    def __init__(self, library: str, operation: str, body: dict[str, Any], streamed: bool, answer: Answer | None = None) -> None:
        """answer: what reads it, where that isn't the one of the operation."""
        self.library = library
        self.operation = operation
        self.model = str(body.get("model") or "")
        self.body = body
        self.streamed = streamed
        self.answer = answer or ANSWERS[operation]()
        self.answered = False
        """Whether the provider has begun to answer."""
        self.attempts = 0
        """Requests that were sent for it."""
        self.span_id = 0
        self.asked_usage = False
        """Whether the request asks for usage that the application did not ask for."""
        self.raw = False
        """Whether the application gets the response itself."""
        self.replaced_model = ""
        """What a gate replaced the model with."""
        self.busy = True
        """Whether the library is at work for it: what the end of its span finds then isn't all yet."""
        self.cut = False
        """Whether the body was closed."""
        self.ended = False
        self.error: BaseException | None = None
        self.unread: Callable[[Answer], None] | None = None
        """Reads an answer that only the application has read so far into `answer`."""
        self.held: list[Callable[[], None]] = []
        """What waits until the library is done."""
        self._tickets: list[Ticket] = []

    def begin(self, host: str) -> None:
        """Asks the gates, in whose hands the body is; a `Refusal` of theirs is the call's end."""
        self.link(trace.get_current_span())
        if not gates:
            return
        request = Request(self.library, self.operation, self.model, dict(self.body), self.streamed, host, attribution())
        for gate in list(gates):
            try:
                ticket = gate.admit(request)
            except Refusal as refusal:
                self.end(refusal)
                raise
            except Exception as error:
                report(f"asking {type(gate).__name__}", error)
            else:
                if ticket is not None:
                    self._tickets.append(ticket)
        if request.model != self.model:
            self.model = self.replaced_model = request.model
            self.body = request.body

    def link(self, span: object) -> None:
        """Takes `span` as this call's, if it can be."""
        if isinstance(span, Span) and span.is_recording() and is_call(span):
            self.span_id = span.get_span_context().span_id
            if len(_open) >= _MOST_OPEN:
                _open.pop(next(iter(_open)), None)
            _open[self.span_id] = self

    def hold(self, then: Callable[[], None]) -> None:
        """`then` once the library isn't at work for this call, as at once."""
        self.held.append(then)
        if not self.busy:
            self.rest()

    def rest(self) -> None:
        """The library is no longer at work for it."""
        self.busy = False
        while self.held:
            self.held.pop()()
        if self.cut and not self.ended:
            self.end()

    def close(self) -> None:
        """The body was closed: the end, unless the library is reading, which then tells how that went."""
        self.cut = True
        if not self.busy:
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """The call is over, or its stream is."""
        if not self.ended:
            self.ended = True
            self.error = error
            # Called between the library and the application, and by the garbage collector.
            with contained("ending a call"):
                self._settle()
        self.rest()

    def _settle(self) -> None:
        answer = self.answer
        if self.unread is not None and self._tickets:
            self.read()
        while self._tickets:
            ticket = self._tickets.pop()
            try:
                ticket.settle(self.usage(), self.error)
            except Exception as failure:
                report(f"settling {type(ticket).__name__}", failure)
        if self.span_id and not self.refused:
            answer.gather()
            if self.streamed and not self.told:
                answer.kept.ask(asked(self.body))
        else:
            answer.kept.release()
            answer.parts.clear()
        self.body = {}

    def merged_into(self, span: ReadableSpan) -> ReadableSpan:
        """For the thread that exports: `span` with what is known here."""
        from tallystick.collectors.calls.merge import merge

        return merge(span, self)

    def read(self) -> None:
        """Reads what only the application has read so far."""
        unread, self.unread = self.unread, None
        if unread is not None:
            try:
                unread(self.answer)
            except Exception as error:
                warn_once(
                    "raw answer", f"an answer of {self.library} couldn't be read: {type(error).__name__}: {str(error)[:200]}"
                )

    @property
    def told(self) -> bool:
        """Whether the provider told all usage."""
        return self.answer.complete and self.answer.told() is not None

    @property
    def refused(self) -> bool:
        """Whether nothing was generated: a gate or the provider said no."""
        if self.error is None:
            return False
        if isinstance(self.error, Refusal):
            return True
        return http_status(self.error) is not None and not self.answer.first_ns

    def usage(self) -> Usage | None:
        """At once, so with an estimate where the provider didn't tell; the span gets a count. None where nothing is known."""
        if self.refused:
            return NOTHING
        answer = self.answer
        told = answer.told()
        if told is not None and answer.complete:
            return told
        if not (self.streamed and self.answered):
            return None
        answer.gather()
        output = answer.kept.tokens + sum(map(estimated, answer.kept.texts)) if answer.first_ns else None
        if told is None:
            inputs = sum(map(estimated, texts_in(asked(self.body))))
            return Usage(inputs, None, None, None, output, None, "estimated" if answer.complete else "partial")
        return Usage(
            told.input_tokens, told.cache_read_tokens, told.cache_write_5m_tokens, told.cache_write_1h_tokens,
            output if told.output_tokens is None else told.output_tokens, told.reasoning_tokens, "partial",
        )  # fmt: skip


def asked(body: dict[str, Any]) -> dict[str, Any] | None:
    """What is to be counted as the input; None where some of it is with the provider."""
    if body.get("previous_response_id") or body.get("conversation"):
        return None
    return {name: body[name] for name in _ASKED if name in body}
