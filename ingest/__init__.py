"""From OTLP bytes to stored, priced, deduplicated rows."""
