"""Hits of LangChain's caches of answers: `set_llm_cache(…)` or `cache=` of a model, in memory, SQL, Redis, semantic, one's own."""

import re
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

import wrapt
from opentelemetry.trace import Span

from tallystick.collectors.caches.hit import Hit, asking, is_asked, record
from tallystick.collectors.failures import contained

_run: ContextVar[Any] = ContextVar("tallystick_langchain_run", default=None)
"""The run manager of the chat model that asks its cache."""

_MODEL: Final = re.compile(r"""['"]model(?:_name|_id)?['"](?:: |, )['"]([^'"]+)""")
"""In the text by which caches tell configurations of models apart."""


def hook_caches(module: Any) -> None:
    """`module` is langchain_core.caches: from here on, every class of caches is seen when it is defined."""
    base = module.BaseCache

    def defined(cls: Any, /, **kwargs: Any) -> None:
        super(base, cls).__init_subclass__(**kwargs)
        with contained("watching a cache of LangChain"):
            _watch(cls)

    base.__init_subclass__ = classmethod(defined)
    for cls in base.__subclasses__():
        _watch(cls)


def hook_models(module: Any) -> None:
    """`module` is langchain_core.language_models.chat_models. Without it hits get spans beside those of an instrumentation."""
    wrapt.wrap_function_wrapper(module, "BaseChatModel._generate_with_cache", _generate)
    wrapt.wrap_function_wrapper(module, "BaseChatModel._agenerate_with_cache", _agenerate)


def _watch(cls: Any) -> None:
    if "lookup" in vars(cls):
        cls.lookup = _looking_up(cls.lookup)
    if "alookup" in vars(cls):
        cls.alookup = _alooking_up(cls.alookup)


def _looking_up(lookup: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(lookup)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_asked():
            return lookup(self, *args, **kwargs)
        with asking() as inner:
            found = lookup(self, *args, **kwargs)
        _tell(self, found, args, kwargs, inner)
        return found

    return watched


def _alooking_up(lookup: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(lookup)
    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_asked():
            return await lookup(self, *args, **kwargs)
        with asking() as inner:
            found = await lookup(self, *args, **kwargs)
        _tell(self, found, args, kwargs, inner)
        return found

    return watched


def _generate(generate: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = _run.set(kwargs.get("run_manager"))
    try:
        return generate(*args, **kwargs)
    finally:
        _run.reset(token)


async def _agenerate(generate: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = _run.set(kwargs.get("run_manager"))
    try:
        return await generate(*args, **kwargs)
    finally:
        _run.reset(token)


def _tell(cache: Any, found: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inner: list[Hit]) -> None:
    with contained("recognising a hit of LangChain's cache"):
        if not found or not isinstance(found, (list, tuple)):
            return
        configuration = str(args[1] if len(args) > 1 else kwargs.get("llm_string", ""))
        hit = _hit(found[0], configuration, semantic="semantic" in type(cache).__name__.lower(), inner=inner)
        spans = _spans(_run.get())
        for span in spans:
            span.set_attributes(hit.attributes())
        if not spans:
            record(hit)


def _hit(answer: Any, configuration: str, *, semantic: bool, inner: list[Hit]) -> Hit:
    message = getattr(answer, "message", None)
    told = getattr(message, "response_metadata", None) or {}
    usage = getattr(message, "usage_metadata", None) or {}
    named = _MODEL.search(configuration)
    return Hit(
        "semantic" if semantic or any(hit.kind == "semantic" for hit in inner) else "response",
        model=str(told.get("model_name") or told.get("model") or (named[1] if named else "")),
        provider=str(told.get("model_provider") or ""),
        operation="chat" if message is not None else "text_completion",
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        similarity=next((hit.similarity for hit in inner), None),
    )


def _spans(run: Any) -> list[Span]:
    """The open spans of a run, of whatever instrumentation is on: they hang on callbacks, and aren't current."""
    found = []
    for handler in getattr(run, "handlers", None) or ():
        with contained("finding LangChain's span"):
            span = _span(handler, run.run_id)
            if span is not None and span.is_recording():
                found.append(span)
    return found


def _span(handler: Any, run_id: Any) -> Any:
    if callable(get := getattr(handler, "get_span", None)):  # OpenInference
        return get(run_id)
    if (invocations := getattr(handler, "_invocation_manager", None)) is not None:  # OpenTelemetry
        return getattr(invocations.get_invocation(run_id=run_id), "span", None)
    spans = getattr(handler, "spans", None)  # OpenLLMetry
    return getattr(spans.get(run_id), "span", None) if isinstance(spans, dict) else None
