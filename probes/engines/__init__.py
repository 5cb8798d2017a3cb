"""Inference engines: how each is spoken to, what it tells of itself, and how one is started."""
