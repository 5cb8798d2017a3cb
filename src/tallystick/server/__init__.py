"""The processes that serve: all in one, or a role each."""
