"""The loss ledger's rows: what came, from where, and what became of it, a row for each payload and resource in it."""

from typing import Final, NamedTuple

HTTP: Final = "http"
"""The source of what came by OTLP into the process that entered it."""


class Origin(NamedTuple):
    """Where a payload came from. source: `HTTP` or a topic, of which partition and offset are. receiver: the process that wrote it there, number:
    which of that process' messages it is, from 1, accepted: spans that it had promised to keep before; "" and 0 where nobody tells.
    """

    source: str
    partition: int = 0
    offset: int = 0
    receiver: str = ""
    number: int = 0
    accepted: int = 0
