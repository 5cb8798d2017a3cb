"""Tokens of a request before it is sent, and of an answer whose provider didn't count them."""

from tallystick.collectors.tokens.count import Count, count_messages, count_request, count_text
from tallystick.collectors.tokens.estimate import estimate_text

__all__ = ["Count", "count_messages", "count_request", "count_text", "estimate_text"]
