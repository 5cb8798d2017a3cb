"""Any web service: the message as JSON, signed by Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr

from tallystick.alerts.channels import Sent
from tallystick.alerts.channels.http import Post, check
from tallystick.alerts.channels.layout import JSON, Layout
from tallystick.alerts.model import Kind, Measure, Message

PREFIX: Final = "whsec_"
Exact = Annotated[
    Decimal, PlainSerializer(lambda value: format(value, "f" if abs(value.adjusted()) < 40 else ""), return_type=str)
]
"""A decimal as a string without an exponent: no reader's floats may round money."""


class BadSecret(ValueError):
    """A signing secret that can't be used."""


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class KeyBody(_Part):
    subject: str
    revision: int
    period_start: datetime
    value: str
    mark: str


class PeriodBody(_Part):
    start: datetime
    end: datetime
    label: str


class ForecastBody(_Part):
    low: Exact
    expected: Exact
    high: Exact


class DriverBody(_Part):
    dimension: str
    value: str
    spent: Exact
    before: Exact | None
    share: Exact


class OutlierBody(_Part):
    trace_id: str
    model: str
    tokens: int
    usual_tokens: int
    cost: Exact | None
    started_at: datetime


class Data(_Part):
    """model.Message. Money in USD, shares from 0 to 1, `percent` from 0 to 100 and beyond; null is unknown."""

    kind: Kind
    key: KeyBody
    title: str
    reason: str
    severity: str
    measure: Measure
    amount: Exact | None
    spent: Exact | None
    percent: Exact | None
    period: PeriodBody | None
    forecast: ForecastBody | None
    burn: Exact | None
    priced_share: Exact | None
    scope: dict[str, str]
    owners: tuple[str, ...]
    drivers: tuple[DriverBody, ...]
    outliers: tuple[OutlierBody, ...]
    links: dict[str, str]
    sql: str


class Body(BaseModel):
    """What is posted. version: rises when a field changes its meaning or goes, not when one is added. note: what went wrong in making
    this message, or empty."""

    type: str
    version: Literal[1] = 1
    timestamp: datetime
    note: str = ""
    data: Data


def body(message: Message, note: str = "") -> str:
    """The documented JSON of a message, one line."""
    data = Data.model_validate(message)
    told = Body(type=f"tallystick.alert.{message.kind}", timestamp=message.at, note=note, data=data)
    return told.model_dump_json()


def layout(user: Path | None = None) -> Layout:
    """The documented JSON, or a user's template that gives some other JSON."""
    return Layout(lambda message, told: body(message, told.note), JSON, user=user, valid=json.loads)


def key_of(secret: str) -> bytes:
    """The bytes to sign with: base64 behind `whsec_`, else the text itself."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret(f"what follows {PREFIX} isn't base64") from None


def sign(key: bytes, delivery_id: str, timestamp: int, body: bytes) -> str:
    """`v1,…`: HMAC-SHA256 of `id.timestamp.body`, in base64."""
    return "v1," + base64.b64encode(hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)).decode()


@dataclass
class Webhook:
    name: str
    url: SecretStr
    secret: SecretStr | None
    post: Post
    layout: Layout
    now: Callable[[], float] = field(default=time.time, repr=False)
    interval_s: float = 0.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        told = self.layout.render(message).encode()
        at = int(self.now())
        headers = {"Content-Type": "application/json", "webhook-id": delivery_id, "webhook-timestamp": str(at)}
        if self.secret is not None:
            headers["webhook-signature"] = sign(key_of(self.secret.get_secret_value()), delivery_id, at, told)
        check(self.post(self.url.get_secret_value(), told, headers))
        return Sent()
