"""What the messages of one budget, period and value have in common, for channels that put such together."""

import hashlib
import json

from tallystick.alerts.model import Key


def incident(key: Key) -> str:
    """At most 255 characters of ASCII, the same for all revisions and thresholds: the 80 % belongs to what the 50 % opened."""
    told = json.dumps([key.subject, key.period_start.isoformat(), key.value])
    return f"tallystick:{key.subject.encode('ascii', 'replace').decode()[:100]}:{hashlib.sha256(told.encode()).hexdigest()[:40]}"
