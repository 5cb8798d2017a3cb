"""Microsoft Teams: an Adaptive Card to a workflow's webhook ("Post to a channel when a webhook request is received"), within 28 kB."""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from tallystick.alerts import figures
from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.channels.http import Answer, Post, check
from tallystick.alerts.channels.layout import Layout, paragraphs
from tallystick.alerts.model import Message
from tallystick.alerts.text import TITLE

MOST_BYTES: Final = 28 * 1024
COLOURS: Final = {"critical": "attention", "warning": "warning"}
CUT: Final[dict[str, Any]] = {"type": "TextBlock", "text": "The rest is too long for a card.", "isSubtle": True, "wrap": True}
ADVICE: Final = {
    "400": "the workflow didn't accept the card: it must be one that starts when a Teams webhook request is received",
    "401": "the workflow's URL isn't valid any more; copy it anew",
    "404": "the workflow is gone or switched off; check it in Teams",
}


def card(title: str, severity: str, rendered: str) -> bytes:
    """The request's body. Blocks that no longer fit are left out from the end, and the card says so."""
    run = {
        "type": "TextRun",
        "text": title or "tallystick",
        "weight": "bolder",
        "size": "medium",
        "color": COLOURS.get(severity, "default"),
    }
    blocks: list[dict[str, Any]] = [{"type": "RichTextBlock", "inlines": [run]}]
    told = _message(blocks)
    for paragraph in paragraphs(rendered):
        style: dict[str, Any] = {"fontType": "monospace", "size": "small"} if paragraph.code else {}
        # A single line break is a blank in Markdown; in code it has to stay one.
        text = paragraph.text.replace("\n", "\n\n") if paragraph.code else paragraph.text
        block = {"type": "TextBlock", "text": text, "wrap": True, **style}
        if len(_message([*blocks, block, CUT])) > MOST_BYTES:
            return _message([*blocks, CUT])
        blocks.append(block)
        told = _message(blocks)
    return told


def _message(blocks: list[dict[str, Any]]) -> bytes:
    content = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": blocks,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return json.dumps({"type": "message", "attachments": [attachment]}, ensure_ascii=False).encode("utf-8", "replace")


@dataclass
class Teams:
    name: str
    url: SecretStr
    layout: Layout
    post: Post
    interval_s: float = 0.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        body = card(figures.line(message.title, TITLE), message.severity, self.layout.render(message))
        answer = self.post(self.url.get_secret_value(), body, {"Content-Type": "application/json"})
        check(answer, ADVICE)
        _check_text(answer)
        return Sent()


def _check_text(answer: Answer) -> None:
    """Connectors, older than workflows, answer 200 also for what failed, with the error in words."""
    if "HTTP error 429" in answer.body:
        raise Retry("it answered 200 with HTTP error 429 in its text", answer.retry_after_s)
    if "delivery failed" in answer.body:
        raise Refused("it answered 200, but that the delivery failed: check the webhook in Teams")
