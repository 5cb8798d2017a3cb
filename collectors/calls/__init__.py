"""What our own observer sees of a request on its way through a client library, below whatever instruments it."""
