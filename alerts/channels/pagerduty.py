"""PagerDuty, Events API v2: one incident for each budget, period and value, which later messages update and `resolved` closes."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from tallystick.alerts.channels import Sent
from tallystick.alerts.channels.http import Post, check
from tallystick.alerts.channels.incident import incident
from tallystick.alerts.model import Kind, Message
from tallystick.alerts.text import text

SEVERITIES = frozenset({"info", "warning", "error", "critical"})
SUMMARY = 1024
ADVICE = {
    "400": "check the routing key: it is the integration key of an Events API v2 integration",
    "403": "check the routing key",
}


def event(message: Message, routing_key: str) -> dict[str, Any]:
    """The event: what `text` tells, as custom details."""
    told = text(message)
    base: dict[str, Any] = {"routing_key": routing_key, "dedup_key": incident(message.key)}
    if message.kind is Kind.RESOLVED:
        return base | {"event_action": "resolve"}
    details: dict[str, Any] = {"reason": told.reason} | {fact.label: fact.value for fact in told.facts}
    if told.drivers:
        details[told.drivers_title] = [", ".join(filter(None, (f"{d.name}: {d.spent}", d.share, d.change))) for d in told.drivers]
    if told.outliers:
        details["Unusual requests"] = list(told.outliers)
    if told.sql:
        details["SQL"] = told.sql
    payload = {
        "summary": told.title[:SUMMARY] or message.key.subject[:SUMMARY] or "tallystick",
        "source": "tallystick",
        "severity": message.severity if message.severity in SEVERITIES else "warning",
        "timestamp": message.at.isoformat(),
        "class": str(message.kind),
        "custom_details": details,
    }
    links = [{"href": link.url, "text": link.label} for link in told.links]
    return base | {"event_action": "trigger", "client": "tallystick", "payload": payload, "links": links}


@dataclass
class PagerDuty:
    name: str
    url: SecretStr
    routing_key: SecretStr
    post: Post
    interval_s: float = 0.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        told = json.dumps(event(message, self.routing_key.get_secret_value())).encode()
        check(self.post(self.url.get_secret_value(), told, {"Content-Type": "application/json"}), ADVICE)
        return Sent()
