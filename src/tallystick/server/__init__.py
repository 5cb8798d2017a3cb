"""The server: receiver, ledger, SQL and page in one process."""

from tallystick.server.local import LocalLedger, open_local
from tallystick.server.run import run

__all__ = ["LocalLedger", "open_local", "run"]
