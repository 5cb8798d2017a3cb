"""Calls that an application's own cache answers: told by `cache_hit`, or recognised from known caches."""
