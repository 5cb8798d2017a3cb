"""For tests of what calls models, and of what tells people: local servers of the providers' protocols, and of Slack."""

from tallystick.testing.server import ProviderServer
from tallystick.testing.slack import SlackMessage, SlackServer
from tallystick.testing.truth import USAGE_HEADER, ServedCall, Usage

__all__ = ["USAGE_HEADER", "ProviderServer", "ServedCall", "SlackMessage", "SlackServer", "Usage"]
