"""Inference engines measured: what they can do, how fast they are under which load, and what a token of theirs costs. Guide: docs/probes.md."""
