"""The report of a probe: one HTML file with everything in it."""
