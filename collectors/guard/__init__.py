"""What stops a call before it is sent: limits on what is spent, and circuit breakers."""
