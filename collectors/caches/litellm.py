"""Hits of LiteLLM's cache. Its instrumentation reports the cached answer's usage like that of a call."""

import sys
from collections.abc import Callable
from typing import Any

import wrapt

from tallystick.collectors.caches.hit import Hit, asking, is_asked, record
from tallystick.collectors.failures import contained


def hook(module: Any) -> None:
    """`module` is litellm.caching.caching_handler. The names differ between versions."""
    handler = module.LLMCachingHandler
    wrappers = {"sync_get_cache": _get, "_sync_get_cache": _get, "async_get_cache": _aget, "_async_get_cache": _aget}
    present = [name for name in wrappers if name in vars(handler)]
    if not present:
        raise AttributeError("this version of LiteLLM has no LLMCachingHandler.sync_get_cache")
    for name in present:
        wrapt.wrap_function_wrapper(handler, name, wrappers[name])


def _get(get: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if is_asked():
        return get(*args, **kwargs)
    with asking() as inner:
        found = get(*args, **kwargs)
    _tell(found, kwargs, inner)
    return found


async def _aget(get: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if is_asked():
        return await get(*args, **kwargs)
    with asking() as inner:
        found = await get(*args, **kwargs)
    _tell(found, kwargs, inner)
    return found


def _tell(found: Any, given: dict[str, Any], inner: list[Hit]) -> None:
    with contained("recognising a hit of LiteLLM's cache"):
        answer = getattr(found, "cached_result", None)
        # Of embeddings a part may be cached: then there is a call for the rest, which has its usage.
        if answer is None and getattr(found, "embedding_all_elements_cache_hit", False):
            answer = found.final_embedding_cached_response
        if answer is None or isinstance(answer, list):
            return
        request = given.get("kwargs") or {}
        usage = getattr(answer, "usage", None)
        provider, _, rest = str(given.get("model") or "").rpartition("/")
        semantic = "semantic" in str(getattr(getattr(sys.modules.get("litellm"), "cache", None), "type", "")).lower() or any(
            hit.kind == "semantic" for hit in inner
        )
        record(
            Hit(
                "semantic" if semantic else "response",
                model=rest,
                provider=str(request.get("custom_llm_provider") or provider),
                operation="embeddings" if "embedding" in str(given.get("call_type")) else "chat",
                input_tokens=_count(usage, "prompt_tokens"),
                output_tokens=_count(usage, "completion_tokens"),
            ),
            library="litellm",
        )


def _count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else None
