"""One call that wasn't made, because a cache of the application had the answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

from opentelemetry import trace

from tallystick.collectors.failures import contained
from tallystick.schema import names
from tallystick.schema.dialects import dialects

Kind = Literal["response", "semantic"]

CALLS: Final = frozenset(
    {"chat", "text_completion", "completion", "generate_content", "embeddings", "embedding", "rerank", "responses", "messages"}
    | {"LLM", "EMBEDDING", "RERANKER", "generation", "llm"}
)
"""What a span says of itself that is the call of a model, and no agent or chain around some."""

_SAID: Final = ("openinference.span.kind", "gen_ai.operation.name", "langfuse.observation.type", "llm.request.type")

_asked: ContextVar["list[Hit] | None"] = ContextVar("tallystick_cache_asked", default=None)


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer from a cache: of the very same request (`response`), or of one that is similar (`semantic`).

    The tokens are those of the answer when it was made. None and '' are unknown.
    """

    kind: Kind
    model: str = ""
    provider: str = ""
    operation: str = "chat"
    input_tokens: int | None = None
    output_tokens: int | None = None
    similarity: float | None = None

    def attributes(self) -> dict[str, Any]:
        """What marks a span as this hit."""
        given: dict[str, Any] = {names.CACHE_HIT: self.kind}
        if self.similarity is not None:
            given[names.CACHE_SIMILARITY] = float(self.similarity)
        for name, count in ((names.SAVED_INPUT_TOKENS, self.input_tokens), (names.SAVED_OUTPUT_TOKENS, self.output_tokens)):
            if count is not None:
                given[name] = str(int(count))
        return given


def record(hit: Hit, library: str = "") -> None:
    """Marks the current span, if it is a call of a model, else makes one of no length. Within `asking`, it is told to who asks.

    library: part of the name of instrumentations all of whose spans are calls.
    """
    asked = _asked.get()
    if asked is not None:
        asked.append(hit)
        return
    current = trace.get_current_span()
    if current.is_recording() and _is_call(current, library):
        current.set_attributes(hit.attributes())
        return
    named = {
        "gen_ai.operation.name": hit.operation,
        "gen_ai.provider.name": hit.provider,
        "gen_ai.request.model": hit.model,
        "gen_ai.usage.input_tokens": hit.input_tokens,
        "gen_ai.usage.output_tokens": hit.output_tokens,
    }
    attributes = {name: value for name, value in named.items() if value not in (None, "")} | hit.attributes()
    trace.get_tracer(names.INSTRUMENTATION).start_span(f"{hit.operation} {hit.model}".strip(), attributes=attributes).end()


@contextmanager
def asking() -> Iterator[list[Hit]]:
    """While a cache is asked that may ask another one: what that one tells, so that one answer is one hit."""
    found: list[Hit] = []
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def is_asked() -> bool:
    """Whether a cache further out is being asked, which will tell of the hit."""
    return _asked.get() is not None


def cache_hit(
    kind: Kind,
    *,
    model: str | None = None,
    provider: str | None = None,
    operation: str = "chat",
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    similarity: float | None = None,
) -> None:
    """Says that a cache of the application's own answered a call: of the very same request (`response`), or of a similar one
    (`semantic`, with how similar).

    Inside of a model's span, as of an instrumented client around the cache, that span is marked. Elsewhere the hit gets a span, with
    the scope's attribution. It costs nothing in the ledger; the tokens, those of the answer when it was made, say what was saved.
    """
    with contained("marking a cache hit"):
        record(Hit(kind, model or "", provider or "", operation, input_tokens, output_tokens, similarity))


def _is_call(span: Any, library: str) -> bool:
    attributes = getattr(span, "attributes", None) or {}
    said = next((attributes[name] for name in _SAID if name in attributes), None)
    if said is not None:
        return said in CALLS
    # OpenInference writes what a span is at its end. Of clients' instrumentations all spans are calls, of frameworks' not.
    scope = str(getattr(getattr(span, "instrumentation_scope", None), "name", ""))
    if library and library in scope:
        return True
    known = next((one for one in dialects() if one.scope and scope.startswith(one.scope)), None)
    return known is not None and known.layer == "client"
