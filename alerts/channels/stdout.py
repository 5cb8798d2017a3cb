"""Standard output: a block of text, for trying out and for whoever reads a process's log."""

import sys
from dataclasses import dataclass
from typing import TextIO

from tallystick.alerts.channels import Retry, Sent
from tallystick.alerts.channels.layout import Layout
from tallystick.alerts.model import Message


@dataclass
class Stdout:
    """stream: None for what `sys.stdout` is when it is sent."""

    name: str
    layout: Layout
    stream: TextIO | None = None
    interval_s: float = 0.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        rows = [row.rstrip() for row in self.layout.render(message).splitlines()]
        told = [row for i, row in enumerate(rows) if row or (i and rows[i - 1])]
        stream = self.stream or sys.stdout
        try:
            stream.write("\n".join(told).strip() + "\n\n")
            stream.flush()
        except (OSError, ValueError) as error:
            raise Retry(f"standard output can't be written: {type(error).__name__}") from None
        return Sent()
