"""Requests sent, and everything that was seen of them."""
