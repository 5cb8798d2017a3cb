"""For tests of what calls models: a local server of the providers' protocols that knows the true usage of each call."""

from tallystick.testing.server import ProviderServer
from tallystick.testing.truth import USAGE_HEADER, ServedCall, Usage

__all__ = ["USAGE_HEADER", "ProviderServer", "ServedCall", "Usage"]
