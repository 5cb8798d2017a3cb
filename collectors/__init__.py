"""What runs in the caller's process: the one import, span processor, scope."""
