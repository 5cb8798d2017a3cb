"""Hits of GPTCache, by whichever of its adapters it is used."""

import sys
from collections.abc import Callable
from typing import Any

import wrapt

from tallystick.collectors.caches.hit import Hit, record
from tallystick.collectors.failures import contained


def hook(module: Any) -> None:
    """`module` is gptcache.adapter.adapter, before the adapters of clients take the functions out of it."""
    wrapt.wrap_function_wrapper(module, "adapt", _adapt)
    wrapt.wrap_function_wrapper(module, "aadapt", _adapt)


class _Convert:
    """What turns the cached answer into the client's: it is called on a hit, and only then."""

    def __init__(self, convert: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        self._convert = convert
        self._model = kwargs.get("model")
        self._cache = kwargs.get("cache_obj")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with contained("recognising a hit of GPTCache"):
            record(Hit(_kind(self._cache), model=str(self._model or "")))
        return self._convert(*args, **kwargs)


def _adapt(adapt: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # (llm_handler, cache_data_convert, update_cache_callback, …). A cache that asks the next one hands on what it was given.
    if len(args) > 1 and callable(args[1]) and not isinstance(args[1], _Convert):
        args = (args[0], _Convert(args[1], kwargs), *args[2:])
    return adapt(*args, **kwargs)


def _kind(cache: Any) -> Any:
    default = getattr(sys.modules.get("gptcache"), "cache", None)
    evaluation = getattr(cache or default, "similarity_evaluation", None)
    return "response" if type(evaluation).__name__ == "ExactMatchEvaluation" else "semantic"
