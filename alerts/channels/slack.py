"""Slack: an incoming webhook, or a bot's token, with which later messages answer under the first.

Limits: https://docs.slack.dev/reference/block-kit. All text of a message together may have some 10,000 characters; that one isn't
documented, and more is refused as `msg_blocks_too_long`. Slack counts as JavaScript does, in UTF-16 units.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from tallystick.alerts import figures
from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.channels.http import Post, check
from tallystick.alerts.channels.layout import SLACK, Layout, paragraphs
from tallystick.alerts.model import Message
from tallystick.alerts.text import REASON, TITLE

API: Final = "https://slack.com/api/chat.postMessage"
MOST_BLOCKS, MOST_HEADER, MOST_SECTION, MOST_TEXT = 50, 150, 3_000, 9_000
ECHO: Final = 262_144
"""chat.postMessage answers with the whole message; half of it couldn't be read, and the message would be sent again."""
NEW_WEBHOOK: Final = "make a new incoming webhook for the app and put its URL in the configuration"
NEW_APP: Final = "install the app anew and put its token (xoxb-…) in the configuration"
ADVICE: Final[Mapping[str, str]] = {
    "action_prohibited": "an administrator has restricted posting to this Slack channel",
    "posting_to_general_channel_denied": "an administrator has restricted posting to this Slack channel",
    "channel_not_found": "the Slack channel doesn't exist, or the app can't see it: check the name, and invite the app to it",
    "channel_is_archived": "unarchive the Slack channel or choose another",
    "is_archived": "unarchive the Slack channel or choose another",
    "not_in_channel": "invite the app to the Slack channel: /invite",
    "no_service": NEW_WEBHOOK,
    "no_service_id": NEW_WEBHOOK,
    "no_team": NEW_WEBHOOK,
    "team_disabled": NEW_WEBHOOK,
    "invalid_token": NEW_WEBHOOK,
    "no_active_hooks": NEW_WEBHOOK,
    "user_not_found": NEW_WEBHOOK,
    "invalid_payload": "a template of your own may give what Slack doesn't take; without one, tell us",
    "invalid_blocks": "a template of your own may give what Slack doesn't take; without one, tell us",
    "msg_blocks_too_long": "make the template shorter",
    "no_text": "a template of your own may give what Slack doesn't take; without one, tell us",
    "invalid_auth": NEW_APP,
    "not_authed": NEW_APP,
    "account_inactive": NEW_APP,
    "token_revoked": NEW_APP,
    "token_expired": NEW_APP,
    "missing_scope": "give the app the scope chat:write and install it anew",
    "restricted_action": "an administrator has restricted posting to this Slack channel",
}
MAY_PASS: Final = frozenset(
    {
        "ratelimited",
        "rate_limited",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
    }
)
NO_THREAD: Final = frozenset({"thread_not_found", "invalid_thread_ts", "cannot_reply_to_message"})


def payload(message: Message, rendered: str) -> dict[str, Any]:
    """`text`, which notifications show, and blocks within Slack's limits; what doesn't fit is cut from the end, and that is said."""
    title = figures.line(message.title, TITLE) or "tallystick"
    context = f"{message.severity} · {message.at:%Y-%m-%d %H:%M} UTC · tallystick"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(title, MOST_HEADER), "emoji": False}}
    ]
    left = MOST_TEXT - 2 * MOST_HEADER
    for paragraph in paragraphs(rendered):
        fence = "```" if paragraph.code else ""
        text = cut(paragraph.text, min(MOST_SECTION, left) - 2 * len(fence) - 2)
        if not text or len(blocks) == MOST_BLOCKS - 2:
            blocks.append(_section("_The rest is too long for Slack._"))
            break
        text = f"{fence}\n{text}\n{fence}" if fence else text
        left -= units(text)
        blocks.append(_section(text))
    line = {"type": "plain_text", "text": cut(figures.line(context, MOST_HEADER), MOST_HEADER), "emoji": False}
    blocks.append({"type": "context", "elements": [line]})
    text = f"{SLACK.text(title)}\n{SLACK.text(figures.line(message.reason, REASON))}".rstrip()
    return {"text": cut(text, MOST_SECTION), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def units(text: str) -> int:
    """Length in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(text: str, most: int) -> str:
    """At most this many UTF-16 units, without half an entity or half a link at the end."""
    if units(text) <= most:
        return text
    if most < 20:
        return ""
    kept = text.encode("utf-16-le", "surrogatepass")[: 2 * (most - 2)].decode("utf-16-le", "ignore")
    return re.sub(r"(&[a-z]{0,4}|<[^<>\n]*)$", "", kept).rstrip() + " …"


def _section(text: str) -> dict[str, Any]:
    # verbatim: names of customers that look like a URL or a channel stay text.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


@dataclass
class SlackWebhook:
    name: str
    url: SecretStr
    layout: Layout
    post: Post
    interval_s: float = 1.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        body = json.dumps(payload(message, self.layout.render(message))).encode()
        check(self.post(self.url.get_secret_value(), body, {"Content-Type": "application/json"}), ADVICE)
        return Sent()


@dataclass
class SlackBot:
    """thread: the `ts` of a budget's first message in a period. What isn't mere information is shown in the channel as well, for
    nobody is told of an answer in a thread that they don't follow."""

    name: str
    token: SecretStr
    channel: str
    layout: Layout
    post: Post
    api: str = API
    interval_s: float = 1.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        told = payload(message, self.layout.render(message)) | {"channel": self.channel}
        if thread is not None:
            told |= {"thread_ts": thread, "reply_broadcast": message.severity != "info"}
        ts, error = self._call(told)
        if thread is not None and error in NO_THREAD:
            # Somebody deleted the first message: this one is the first now.
            thread = None
            ts, error = self._call({k: v for k, v in told.items() if k not in ("thread_ts", "reply_broadcast")})
        if error is not None:
            raise Refused(f"Slack answered {error}: {ADVICE.get(error, 'see the errors of chat.postMessage')}")
        return Sent(thread or ts)

    def _call(self, told: dict[str, Any]) -> tuple[str | None, str | None]:
        """The new message's ts, or the error's code. Raises `Retry` for a code that may pass."""
        headers = {"Content-Type": "application/json; charset=utf-8", "Authorization": f"Bearer {self.token.get_secret_value()}"}
        answer = self.post(self.api, json.dumps(told).encode(), headers, read_most=ECHO)
        check(answer, ADVICE)
        try:
            said = json.loads(answer.body)
            ok, ts, error = said["ok"], said.get("ts"), said.get("error")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Retry("Slack answered 200 without JSON") from None
        if ok is True:
            return (ts if isinstance(ts, str) else None), None
        code = error if isinstance(error, str) and re.fullmatch(r"[a-z][a-z_]{1,63}", error) else "an unknown error"
        if code in MAY_PASS:
            raise Retry(f"Slack answered {code}", answer.retry_after_s)
        return None, code
