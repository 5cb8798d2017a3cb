"""What is sent: the body of a request to /v1/chat/completions or /v1/completions, with those optional fields that the engine takes."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tallystick.probes.runs import EngineFacts

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"

OPTIONAL: Final = {
    "stream_options": "so that it tells its tokens",
    "ignore_eos": "so that the answer is as long as asked for",
    "min_tokens": "so that the answer is as long as asked for",
    "generation_config": "so that the answer is as long as asked for",
    "cache_prompt": "so that prefixes are cached",
    "seed": "so that answers are the same",
    "temperature": "so that answers are the same",
    "max_completion_tokens": "in place of max_tokens, where that is refused",
}
"""Fields of a request that not every engine takes, and what each is for."""


class Prompt(NamedTuple):
    """token_ids: None where text is to be sent. text: the same in words; '' where there are only ids."""

    token_ids: tuple[int, ...] | None
    text: str


def body(facts: EngineFacts, prompt: Prompt, output_tokens: int, extra: Mapping[str, Any]) -> bytes:
    """JSON. Token ids are sent where the engine takes them, else the text. extra: fields that are added, and win."""
    limit = "max_completion_tokens" if "max_completion_tokens" in facts.fields else "max_tokens"
    content: dict[str, Any] = {"model": facts.model, "stream": True, limit: output_tokens}
    if facts.endpoint == CHAT:
        content["messages"] = [{"role": "user", "content": prompt.text}]
    else:
        content["prompt"] = list(prompt.token_ids) if facts.token_ids and prompt.token_ids is not None else prompt.text
    values = {
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": output_tokens,
        # Made anew, it has no end-of-sequence token that could end it.
        "generation_config": json.dumps({"max_new_tokens": output_tokens, "do_sample": False}),
        "cache_prompt": True,
        "seed": 0,
        "temperature": 0,
    }
    content |= {name: values[name] for name in facts.fields if name in values}
    return json.dumps(content | dict(extra), ensure_ascii=False, separators=(",", ":")).encode()
