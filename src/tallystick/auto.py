"""`import tallystick.auto`: from here on, the model calls of this process are metered. See docs/collector.md."""

from tallystick.collectors.failures import contained

with contained("starting the collector"):
    # Inside, because an OpenTelemetry that doesn't fit must not fail the application's import either.
    from tallystick.collectors.start import start

    start()
