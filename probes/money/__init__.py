"""What an engine's tokens cost, and from where on it is cheaper than an API."""
