"""What the events of a stream of /v1/chat/completions or /v1/completions bring, by the names that engines give it.

An event is parsed when it comes. Parsed later, all events of an answer at once, they would keep the loop from every other stream for
milliseconds; one takes some microseconds (benchmarks/probe_client.py), and its own time has been taken before.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tallystick.probes.records import Event, Kind, Outcome, Usage

MOST_WORDS: Final = 200
"""Characters of what an engine says of a failure."""


class Answer:
    """What has come so far of one answer.

    events: in order; one for each kind that a chunk brings, all with its time. finish_reason: the first that was said, '' before.
    usage: the last that was told. done: `[DONE]` has come. failure: what the stream itself says or is, and in words.
    """

    __slots__ = ("chunks", "done", "events", "failure", "finish_reason", "generated", "usage")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.done = False
        self.generated = False
        self.chunks = 0
        """Of those that are chunks of chat or text completions."""
        self.failure: tuple[Outcome, str] | None = None

    def take(self, data: bytes, at_ns: int) -> bool:
        """The next event's data, complete at `at_ns`. True: it brought generated text."""
        if data == b"[DONE]":
            self.done = True
            self.events.append(Event(at_ns, Kind.DONE, 0))
            return False
        try:
            chunk = json.loads(data.decode())
        except (ValueError, RecursionError):
            self.failure = Outcome.GARBAGE, f"event {len(self.events) + 1} of the stream isn't JSON"
            return False
        if not isinstance(chunk, dict):
            self.failure = Outcome.GARBAGE, f"event {len(self.events) + 1} of the stream is no JSON object"
            return False
        if chunk.get("error") or chunk.get("object") == "error":
            self.failure = Outcome.REFUSED, f"within the stream: {complaint(chunk)}"
            return False
        brought = False
        choices = chunk.get("choices")
        usage = usage_of(chunk)
        if isinstance(choices, list):
            self.chunks += 1
            if choices and isinstance(choices[0], dict):
                brought = self._choice(choices[0], at_ns)
            elif usage is None:
                self.events.append(Event(at_ns, Kind.OTHER, 0))
        elif usage is None:
            self.events.append(Event(at_ns, Kind.OTHER, 0))
        if usage is not None:
            self.usage = usage
            self.events.append(Event(at_ns, Kind.USAGE, 0))
        return brought

    def _choice(self, choice: dict[str, Any], at_ns: int) -> bool:
        parts = generated(choice)
        if parts:
            self.generated = True
            self.events.extend(Event(at_ns, kind, characters) for kind, characters in parts)
        else:
            delta = choice.get("delta")
            role = isinstance(delta, dict) and delta.get("role")
            self.events.append(Event(at_ns, Kind.ROLE if role and not self.generated else Kind.OTHER, 0))
        reason = choice.get("finish_reason")
        if reason and not self.finish_reason:
            self.finish_reason = str(reason)[:40]
        return bool(parts)


def generated(choice: Mapping[str, Any]) -> list[tuple[Kind, int]]:
    """Kinds of generated text in a choice of a chunk, and how many characters of each. What is there and empty is none."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        text = choice.get("text")
        return [(Kind.CONTENT, len(text))] if isinstance(text, str) and text else []
    found = []
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought and isinstance(thought, str):
        found.append((Kind.REASONING, len(thought)))
    text = delta.get("content")
    if text and isinstance(text, str):
        found.append((Kind.CONTENT, len(text)))
    if delta.get("tool_calls") or delta.get("function_call"):
        characters = _called(delta.get("tool_calls"), delta.get("function_call"))
        if characters:
            found.append((Kind.TOOL, characters))
    return found


def _called(calls: Any, function: Any) -> int:
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return sum(
        len(part)
        for one in (*functions, function)
        if isinstance(one, dict)
        for part in (one.get("name"), one.get("arguments"))
        if isinstance(part, str)
    )


def usage_of(chunk: Mapping[str, Any]) -> Usage | None:
    """Tokens that a chunk tells of: by OpenAI's names, DeepSeek's for what was cached, and llama.cpp's own `timings`."""
    usage, timings = chunk.get("usage"), chunk.get("timings")
    timings = timings if isinstance(timings, dict) else {}
    if not isinstance(usage, dict):
        new, cached, generated_ = (_count(timings.get(name)) for name in ("prompt_n", "cache_n", "predicted_n"))
        if new is None or generated_ is None:
            return None
        return Usage(new + cached if cached is not None else None, cached, generated_, None)
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    if cached is None:
        cached = _count(usage.get("prompt_cache_hit_tokens"))
    if cached is None:
        cached = _count(timings.get("cache_n"))
    details = usage.get("completion_tokens_details")
    thought = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    if thought is None:
        thought = _count(usage.get("reasoning_tokens"))
    return Usage(_count(usage.get("prompt_tokens")), cached, _count(usage.get("completion_tokens")), thought)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def complaint(body: Any) -> str:
    """What an engine's answer says is wrong, in at most MOST_WORDS characters; '' if it doesn't say so as any engine does.

    `input`, in which FastAPI repeats what it was sent, is left out.
    """
    if isinstance(body, dict):
        for name in ("error", "message", "detail", "error_msg"):
            if body.get(name):
                return complaint(body[name])
        place = ".".join(str(part) for part in body["loc"]) if isinstance(body.get("loc"), list) else ""
        return f"{place}: {body['msg']}"[:MOST_WORDS] if isinstance(body.get("msg"), str) else ""
    if isinstance(body, list):
        return "; ".join(filter(None, map(complaint, body)))[:MOST_WORDS]
    if not isinstance(body, str):
        return ""
    words = " ".join(body.split())
    for repeated in ("'input':", '"input":', "input_value="):
        words = words.partition(repeated)[0]
    return words[:MOST_WORDS]
