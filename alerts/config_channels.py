"""Channels of the configuration: where messages go. Whatever gives access is a `SecretStr`, also a URL, for a webhook's URL is its key."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

PAGERDUTY_EVENTS: Final = "https://events.pagerduty.com/v2/enqueue"


def _web_address(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("write an address that begins with https://")
    return url


def _filled(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("is empty")
    return secret


def _addresses(value: object) -> object:
    return [value] if isinstance(value, str) else value


Secret = Annotated[SecretStr, AfterValidator(_filled)]
Address = Annotated[SecretStr, AfterValidator(_web_address)]
Mailbox = Annotated[str, Field(max_length=320, pattern=r"^[^@\r\n]+@[^@\s]+$")]


class _Channel(BaseModel):
    # Errors never show what was entered: it may be a secret in the wrong place.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )

    template: Path | None = None
    """A Jinja2 template of the user's in place of the built-in one."""


class SlackChannel(_Channel):
    """An incoming webhook (`url`), or a bot (`token` and `channel`), which can answer in threads."""

    type: Literal["slack"] = "slack"
    url: Address | None = None
    token: Secret | None = None
    channel: Annotated[str, Field(min_length=1, max_length=80)] | None = None

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.url is None) == (self.token is None):
            raise ValueError("needs either `url`, of an incoming webhook, or `token` with `channel`, of a bot")
        if (self.token is None) != (self.channel is None):
            raise ValueError("`token` and `channel` go together; an incoming webhook has its channel already")
        return self


class WebhookChannel(_Channel):
    """A POST signed by Standard Webhooks with `secret` (`whsec_…`)."""

    type: Literal["webhook"] = "webhook"
    url: Address
    secret: Secret | None = None


class PagerDutyChannel(_Channel):
    """Events API v2. `routing_key` is the integration key of a service."""

    type: Literal["pagerduty"] = "pagerduty"
    routing_key: Secret
    url: Address = SecretStr(PAGERDUTY_EVENTS)


class TeamsChannel(_Channel):
    """The URL of a Microsoft Teams workflow that posts webhook requests to a channel."""

    type: Literal["teams"] = "teams"
    url: Address


class EmailChannel(_Channel):
    """SMTP. `tls`: `starttls` (port 587), `tls` from the first byte (465), or `none` (25)."""

    type: Literal["email"] = "email"
    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    from_: Annotated[Mailbox, Field(alias="from")]
    to: Annotated[tuple[Mailbox, ...], BeforeValidator(_addresses), Field(min_length=1)]
    username: str | None = None
    password: Secret | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, data: object) -> object:
        ports = {"tls": 465, "none": 25}
        if isinstance(data, dict) and "port" not in data and data.get("tls") in ports:
            return data | {"port": ports[data["tls"]]}
        return data

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("`username` and `password` go together")
        if self.password is not None and self.tls == "none":
            raise ValueError("a password isn't sent in the clear: set `tls` to starttls or tls")
        return self


class StdoutChannel(_Channel):
    """A line on standard output."""

    type: Literal["stdout"] = "stdout"


ChannelConfig = Annotated[
    SlackChannel | WebhookChannel | PagerDutyChannel | TeamsChannel | EmailChannel | StdoutChannel, Field(discriminator="type")
]
