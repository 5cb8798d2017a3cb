"""A channel made from its configuration, with everything checked that can be without sending."""

from email.errors import HeaderParseError
from email.headerregistry import Address

from pydantic import SecretStr

from tallystick.alerts.channels import Channel, webhook
from tallystick.alerts.channels.addresses import BadAddress, check_url
from tallystick.alerts.channels.email import Email
from tallystick.alerts.channels.http import Post
from tallystick.alerts.channels.layout import HTML, MARKDOWN, PLAIN, SLACK, BadTemplate, Layout
from tallystick.alerts.channels.pagerduty import PagerDuty
from tallystick.alerts.channels.slack import SlackBot, SlackWebhook
from tallystick.alerts.channels.stdout import Stdout
from tallystick.alerts.channels.teams import Teams
from tallystick.alerts.channels.webhook import BadSecret, Webhook, key_of
from tallystick.alerts.config_channels import (
    ChannelConfig,
    EmailChannel,
    PagerDutyChannel,
    SlackChannel,
    StdoutChannel,
    TeamsChannel,
    WebhookChannel,
)


class BadChannel(ValueError):
    """A channel that can't be used as it is configured. field: which of its fields; the texts hold no secret."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


def channel_for(name: str, config: ChannelConfig, *, allow_private: bool) -> Channel:
    """The channel that a configuration describes. Raises `BadChannel`. allow_private: whether its webhook may reach private addresses."""
    try:
        return _channel(name, config, Post(allow_private))
    except BadTemplate as error:
        raise BadChannel("template", str(error)) from None
    except BadSecret as error:
        raise BadChannel("secret", str(error)) from None
    except BadAddress as error:
        raise BadChannel("url", str(error)) from None


def _channel(name: str, config: ChannelConfig, post: Post) -> Channel:  # noqa: PLR0911, one for each type
    match config:
        case SlackChannel():
            layout = Layout("slack.j2", SLACK, user=config.template)
            if config.token is not None and config.channel is not None:
                return SlackBot(name, config.token, config.channel, layout, post)
            assert config.url is not None
            return SlackWebhook(name, _checked(config.url, post), layout, post)
        case WebhookChannel():
            if config.secret is not None:
                key_of(config.secret.get_secret_value())
            return Webhook(name, _checked(config.url, post), config.secret, post, webhook.layout(config.template))
        case PagerDutyChannel():
            if config.template is not None:
                raise BadTemplate("PagerDuty's events have a fixed form: leave `template` out")
            return PagerDuty(name, _checked(config.url, post), config.routing_key, post)
        case TeamsChannel():
            return Teams(name, _checked(config.url, post), Layout("teams.j2", MARKDOWN, user=config.template), post)
        case EmailChannel():
            return _email(name, config)
        case StdoutChannel():
            return Stdout(name, Layout("text.j2", PLAIN, user=config.template))


def _checked(url: SecretStr, post: Post) -> SecretStr:
    check_url(url.get_secret_value(), allow_private=post.allow_private)
    return url


def _email(name: str, config: EmailChannel) -> Email:
    """A template with `.html` in its name is for the HTML part; any other gives the whole mail as text."""
    for field, address in [("from", config.from_), *(("to", address) for address in config.to)]:
        try:
            Address(addr_spec=address)
        except (HeaderParseError, ValueError, IndexError):
            raise BadChannel(field, "isn't an e-mail address; write it alone, as ana@example.com") from None
    own = config.template
    of_html = own is not None and ".html" in own.suffixes
    text = Layout("text.j2", PLAIN, user=None if of_html else own)
    html = Layout("email.html.j2", HTML, user=own) if own is None or of_html else None
    return Email(
        name, config.host, config.port, config.tls, config.from_, config.to, config.username, config.password, text, html
    )
