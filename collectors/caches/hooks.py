"""Caches that are recognised by themselves. Imports none of them: each is hooked when the application imports it."""

from collections.abc import Callable
from typing import Any, Final

import wrapt

from tallystick.collectors.caches import gptcache, langchain, litellm
from tallystick.collectors.failures import contained

HOOKS: Final[tuple[tuple[str, Callable[[Any], None]], ...]] = (
    ("gptcache.adapter.adapter", gptcache.hook),
    ("langchain_core.caches", langchain.hook_caches),
    ("langchain_core.language_models.chat_models", langchain.hook_models),
    ("litellm.caching.caching_handler", litellm.hook),
)
"""Module → what is done to it when it is imported."""


def watch() -> None:
    for name, hook in HOOKS:
        wrapt.register_post_import_hook(_contained(name, hook), name)


def _contained(name: str, hook: Callable[[Any], None]) -> Callable[[Any], None]:
    def imported(module: Any) -> None:
        with contained(f"recognising hits of {name.partition('.')[0]}'s cache"):
            hook(module)

    return imported
