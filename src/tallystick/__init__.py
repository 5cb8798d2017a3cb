"""tallystick: observability and FinOps for language-model calls."""
