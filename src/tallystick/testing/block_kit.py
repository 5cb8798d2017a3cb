"""What Slack takes as a message and how it shows it: https://docs.slack.dev/reference/block-kit, the parts that notifications use."""

import re
from collections.abc import Iterator
from typing import Any, Final

MOST_BLOCKS, MOST_FIELDS, MOST_ELEMENTS = 50, 10, 10
MOST_HEADER, MOST_SECTION, MOST_FIELD, MOST_TEXT = 150, 3_000, 2_000, 40_000
MOST_IN_ALL: Final = 10_000
"""Of all blocks' text together. Slack doesn't document it; above some 10,000 to 11,000 it answers `msg_blocks_too_long`."""
KNOWN: Final = frozenset(
    {"header", "section", "context", "divider", "image", "actions", "rich_text", "video", "file", "markdown", "table"}
)
MENTION: Final = re.compile(r"<([!@#][^>]*)>")
LINK: Final = re.compile(r"<((?:https?|mailto):[^|>]*)(?:\|([^>]*))?>")


def code(payload: Any) -> str | None:
    """The code with which Slack refuses a message, or None: `invalid_payload`, `no_text`, `invalid_blocks`, `msg_blocks_too_long`, `msg_too_long`."""
    if not isinstance(payload, dict) or not isinstance(payload.get("text", ""), str):
        return "invalid_payload"
    if not payload.get("text") and not payload.get("blocks"):
        return "no_text"
    if units(payload.get("text", "")) > MOST_TEXT:
        return "msg_too_long"
    if errors(payload.get("blocks", [])):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(units, texts(payload.get("blocks", [])))) > MOST_IN_ALL else None


def errors(blocks: Any) -> list[str]:
    """What is wrong with blocks, each with the place of it: `must be less than 3001 characters [json-pointer:/blocks/0/text/text]`."""
    if not isinstance(blocks, list):
        return ["must be an array [json-pointer:/blocks]"]
    found = [f"no more than {MOST_BLOCKS} items allowed [json-pointer:/blocks]"] if len(blocks) > MOST_BLOCKS else []
    for i, block in enumerate(blocks):
        found += _block(block, f"/blocks/{i}")
    return found


def texts(value: Any) -> Iterator[str]:
    """Every text in blocks, in order."""
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "text" and isinstance(item, str):
                yield item
            else:
                yield from texts(item)


def mentions(payload: dict[str, Any]) -> list[str]:
    """Whom a message would call, as `!channel` or `@U123`: in `text` and in what is mrkdwn."""
    marked = [payload.get("text", ""), *_mrkdwn(payload.get("blocks", []))]
    return [found for text in marked for found in MENTION.findall(text)]


def units(text: str) -> int:
    """Length as Slack counts it, in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def show(payload: dict[str, Any]) -> str:
    """A message as Slack shows it, as far as a terminal can: entities and links resolved, the header underlined."""
    parts: list[str] = []
    for block in payload.get("blocks") or [{"type": "section", "text": {"type": "mrkdwn", "text": payload.get("text", "")}}]:
        if block["type"] == "divider":
            parts.append("─" * 40)
        elif block["type"] == "header":
            parts.append(f"{block['text']['text']}\n{'═' * min(len(block['text']['text']), 80)}")
        elif block["type"] == "context":
            parts.append("  ".join(_shown(element) for element in block["elements"]))
        else:
            told = [_shown(part) for part in ([block["text"]] if "text" in block else []) + block.get("fields", [])]
            parts.append("\n".join(told))
    return "\n\n".join(parts)


def _shown(text: dict[str, Any]) -> str:
    told: str = text.get("text", "")
    if text["type"] != "mrkdwn":
        return told
    told = MENTION.sub(lambda found: "@" + found[1].lstrip("!@#"), told)
    told = LINK.sub(lambda found: f"{found[2]} ({found[1]})" if found[2] else found[1], told)
    return told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _mrkdwn(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _mrkdwn(item)
    elif isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            yield str(value.get("text", ""))
        else:
            for item in value.values():
                yield from _mrkdwn(item)


def _block(block: Any, at: str) -> list[str]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in KNOWN:
        return [f"unsupported type: {kind} [json-pointer:{at}/type]"]
    if kind == "header":
        return _text(block.get("text"), f"{at}/text", MOST_HEADER, {"plain_text"})
    if kind == "section":
        return _section(block, at)
    if kind == "context":
        elements = block.get("elements")
        if not isinstance(elements, list) or not 1 <= len(elements) <= MOST_ELEMENTS:
            return [f"must have between 1 and {MOST_ELEMENTS} items [json-pointer:{at}/elements]"]
        return [found for i, one in enumerate(elements) for found in _text(one, f"{at}/elements/{i}", MOST_SECTION)]
    return []


def _section(block: dict[str, Any], at: str) -> list[str]:
    if "text" not in block and "fields" not in block:
        return [f"missing required field: text or fields [json-pointer:{at}]"]
    found = _text(block["text"], f"{at}/text", MOST_SECTION) if "text" in block else []
    fields = block.get("fields", [])
    if not isinstance(fields, list) or len(fields) > MOST_FIELDS or ("fields" in block and not fields):
        return [*found, f"must have between 1 and {MOST_FIELDS} items [json-pointer:{at}/fields]"]
    return found + [error for i, field in enumerate(fields) for error in _text(field, f"{at}/fields/{i}", MOST_FIELD)]


def _text(text: Any, at: str, most: int, kinds: frozenset[str] | set[str] = frozenset({"plain_text", "mrkdwn"})) -> list[str]:
    if not isinstance(text, dict) or text.get("type") not in kinds:
        return [f"failed to match all allowed schemas [json-pointer:{at}]"]
    if not isinstance(text.get("text"), str) or not text["text"]:
        return [f"must be more than 0 characters [json-pointer:{at}/text]"]
    if units(text["text"]) > most:
        return [f"must be less than {most + 1} characters [json-pointer:{at}/text]"]
    other = "verbatim" if text["type"] == "plain_text" else "emoji"
    return [f"no additional property allowed: {other} [json-pointer:{at}]"] if other in text else []
