"""A message on Kafka: a serialised ExportTraceServiceRequest as its value, and headers that nothing depends on.

So messages of a service's collector, of the receiver and of the OpenTelemetry Collector's Kafka exporter (`otlp_proto`, no headers) are
read alike. Whose spans they are is never said by the one who sends them: see docs/decisions/0009-straight-to-kafka.md.
"""

import re
from typing import Final

TOPIC: Final = "tallystick.otlp"
RECEIVED: Final = "tallystick.received"
"""Where receivers write: the only topic whose messages name their tenant."""
DEAD_LETTERS: Final = "tallystick.dead-letters"

CONTENT_TYPE: Final = "content-type"
"""`application/x-protobuf`, also where the header is missing."""
SENT: Final = "tallystick-sent-unix-nano"
"""When the sender handed the message over, by its own clock: decimal digits."""
SENDER: Final = "tallystick-sender"
"""Which program of which version: `collector/0.1.0`."""


def headers(sender: str, sent_unix_nano: int) -> list[tuple[str, bytes]]:
    """The headers of a message. `sender` as in `SENDER`."""
    return [
        (CONTENT_TYPE, b"application/x-protobuf"),
        (SENT, str(sent_unix_nano).encode()),
        (SENDER, sender.encode()),
    ]


def is_topic(name: str) -> bool:
    """Whether Kafka takes `name` for a topic."""
    return re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) is not None and name not in {".", ".."}
