"""The loss ledger's rows: what came, from where, and what became of it, a row for each payload and resource in it."""

from typing import Final, NamedTuple

HTTP: Final = "http"
"""The source of what came by OTLP into the process that entered it."""


class Origin(NamedTuple):
    """Where a payload came from. Over Kafka its coordinates; where a receiver wrote it, which one, too, and what that had told by then.

    source: `HTTP` or a topic. number: of the payload among the receiver's, from 1. accepted: spans that the receiver had taken by then, this
    payload's among them; 0 where nobody tells.
    """

    source: str
    partition: int = -1
    offset: int = -1
    receiver: str = ""
    number: int = 0
    accepted: int = 0
