"""Which ledger a process works on: the embedded one of its data directory, or a ClickHouse server's."""

import logging
import time
from typing import Final

from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.store import EmbeddedStore, Store
from tallystick.settings import Settings

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 60
"""How long a server may be away at the start: it may start at the same time."""

_BETWEEN_S: Final = 1.0


def open_ledger(settings: Settings, patience_s: float = _PATIENCE_S) -> Store:
    """An open ledger; the caller closes it. A server that is away is waited for. Raises StoreError."""
    if settings.clickhouse is None:
        return EmbeddedStore(settings.data)
    from tallystick.ingest.server_store import ServerStore

    until = time.monotonic() + patience_s
    while True:
        try:
            return ServerStore(
                settings.clickhouse,
                settings.clickhouse_password or "",
                cluster=settings.clickhouse_cluster or "",
                replicated=bool(settings.clickhouse_replicated),
                ca=settings.clickhouse_ca,
            )
        except StoreUnavailable as error:
            if time.monotonic() >= until:
                raise StoreUnavailable(str(error), "is it running, and TALLYSTICK_CLICKHOUSE its HTTP address?") from error
            log.warning("%s; waiting for it, %d s more", error, until - time.monotonic())
            time.sleep(min(_BETWEEN_S, max(0.0, until - time.monotonic())))
