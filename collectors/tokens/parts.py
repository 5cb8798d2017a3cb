"""What is countable in a request, whatever the provider's form of it: texts, images, and parts of which nothing is known. Pure.

OpenAI's chat messages and Responses input, Anthropic's messages, Gemini's contents, Bedrock's Converse, Cohere's chat.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple


class Image(NamedTuple):
    """`data`: base64, a `data:` URL, or '' where the picture isn't in the request."""

    data: str
    detail: str


class Unknown(NamedTuple):
    """A part whose tokens can't be known here: audio, a file."""

    kind: str


class Unpublished(NamedTuple):
    """A text that goes to the model in a form that the provider doesn't publish: a call of a tool."""

    text: str


Piece = str | Image | Unknown | Unpublished

_TEXTS: Final = ("text", "refusal", "thinking", "reasoning", "output", "input_text", "summary_text")
_FILES: Final = frozenset(
    {"input_audio", "audio", "file", "input_file", "document", "video", "inlineData", "inline_data", "fileData"}
)
_DEPTH: Final = 8


def mapping(thing: object) -> Mapping[str, Any] | None:
    """A mapping, or a client library's own object as one; None for anything else."""
    if isinstance(thing, Mapping):
        return thing
    dump = getattr(thing, "model_dump", None)
    if callable(dump):
        try:
            dumped = dump(exclude_none=True)
        except Exception:  # a stranger's object
            return None
        return dumped if isinstance(dumped, Mapping) else None
    return None


def pieces(content: object, depth: int = 0) -> Iterator[Piece]:
    """The pieces of a message's content: a text, a part, or a list of them."""
    if content is None or depth > _DEPTH:
        return
    if isinstance(content, str):
        yield content
    elif isinstance(content, (list, tuple)):
        for part in content:
            yield from pieces(part, depth + 1)
    elif (part := mapping(content)) is not None:
        yield from _part(part, depth)
    else:
        yield Unknown(type(content).__name__)


def _part(part: Mapping[str, Any], depth: int) -> Iterator[Piece]:
    kind = str(part.get("type", ""))
    if called := _called(part, kind):
        yield Unpublished(called)
    elif (image := _image(part, kind)) is not None:
        yield image
    elif isinstance(text := next((part[name] for name in _TEXTS if isinstance(part.get(name), str)), None), str):
        yield text
    elif (result := part.get("toolResult") or part.get("tool_result") or part.get("functionResponse")) is not None:
        inner = mapping(result) or {}
        yield from pieces(inner.get("content", inner.get("response")), depth + 1)
    elif "content" in part and kind != "document":
        yield from pieces(part["content"], depth + 1)
    elif found := kind if kind in _FILES else next((name for name in part if name in _FILES), ""):
        yield Unknown(found)
    elif "json" in part or not kind:
        yield json.dumps(part.get("json", dict(part)), default=str, ensure_ascii=False)
    else:
        yield Unknown(kind)


def _called(part: Mapping[str, Any], kind: str) -> str:
    """Name and arguments of a tool that the model called earlier; '' where the part is no such call."""
    call = mapping(part.get("function") or part.get("toolUse") or part.get("functionCall") or part.get("function_call"))
    if call is None and kind in {"tool_use", "function_call", "server_tool_use"}:
        call = part
    if call is None or not call.get("name"):
        return ""
    given = call.get("arguments", call.get("input", call.get("args", "")))
    return f"{call['name']} {given if isinstance(given, str) else json.dumps(given, default=str, ensure_ascii=False)}"


def _image(part: Mapping[str, Any], kind: str) -> Image | None:
    detail = str(part.get("detail") or "auto")
    if kind in {"image_url", "input_image"} or "image_url" in part:
        url = part.get("image_url", "")
        if (inner := mapping(url)) is not None:
            url, detail = inner.get("url", ""), str(inner.get("detail") or detail)
        return Image(url if isinstance(url, str) and url.startswith("data:") else "", detail)
    if kind == "image" or "image" in part:
        source = mapping(part.get("source")) or mapping((mapping(part.get("image")) or {}).get("source")) or {}
        data = source.get("data", "")
        return Image(data if isinstance(data, str) else "", detail)
    inline = mapping(part.get("inlineData") or part.get("inline_data"))
    if inline and str(inline.get("mimeType", inline.get("mime_type", ""))).startswith("image/"):
        data = inline.get("data", "")
        return Image(data if isinstance(data, str) else "", detail)
    return None
