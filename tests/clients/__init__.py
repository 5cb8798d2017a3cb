"""Real client libraries, each run as a service would, with and without the collector."""
