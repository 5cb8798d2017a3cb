"""Budgets and alerts beside the receiver: the configuration in force, the evaluations, and the outbox."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tallystick.alerts.channels import Channel
from tallystick.alerts.channels.open import BadChannel, channel_for
from tallystick.alerts.config import Config, load_config
from tallystick.alerts.config_channels import ChannelConfig
from tallystick.alerts.config_yaml import ConfigError
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.scheduler import Scheduler
from tallystick.alerts.tick import Evaluator
from tallystick.ingest.store import Store
from tallystick.settings import Settings

log = logging.getLogger(__name__)

_LIMITS: Final[Mapping[str, int]] = {"max_execution_time": 60, "max_threads": 2}
"""What a query of ours may take."""


class Alerts:
    """What alerts are in this process: `start` begins to evaluate and to deliver, `stop` finishes what is under way.

    url: where this server listens. problems: what keeps parts of the configuration out, a line each.
    Raises ConfigError where the file can't be read at all, LedgerError where the alert ledger can't be opened.
    """

    def __init__(self, store: Store, settings: Settings, url: str) -> None:
        self._store, self._settings = store, settings
        self._seen = _stamp(settings.config)
        self.config = load_config(settings.config, os.environ) if settings.config else Config()
        self.channels, self.problems = self._opened(self.config)
        self._tell()
        self.ledger = Ledger(settings.alerts_url or f"sqlite:///{store.data / 'alerts.db'}")
        self.outbox = Outbox(self.ledger, self.channels)
        self._evaluator = Evaluator(
            self.ledger, self._ask, self.config, holder=f"{socket.gethostname()}:{os.getpid()}", author="configuration",
            page=settings.public_url or url,
        )  # fmt: skip
        every = timedelta(seconds=settings.alerts_every_s or 10)
        self.scheduler = Scheduler(self._evaluator, lambda: self.outbox, every, refresh=self._refresh)

    def start(self) -> None:
        if self._settings.alerts_every_s:
            self.outbox.start()
            self.scheduler.start()

    def stop(self) -> None:
        if self._settings.alerts_every_s:
            self.scheduler.stop()
            if not self.outbox.stop():
                log.warning("a channel was still sending; its message may be sent again")
        self.ledger.close()

    def _refresh(self) -> None:
        """Take over the configuration file if it was changed; one that can't be read changes nothing."""
        seen = _stamp(self._settings.config)
        if seen == self._seen or self._settings.config is None:
            return
        self._seen = seen
        try:
            config = load_config(self._settings.config, os.environ)
        except (ConfigError, OSError) as error:
            log.error("the configuration was changed and can't be read; alerts go on with the last one: %s", error)
            return
        changed = dict(config.channels) != dict(self.config.channels)
        self.config = config
        channels, self.problems = self._opened(config)
        self._tell()
        self._evaluator.use(config)
        if changed:
            self.outbox.stop()
            self.channels = channels
            self.outbox = Outbox(self.ledger, channels)
            self.outbox.start()
        log.info("the configuration was changed: %d budgets, %d rules", len(config.budgets), len(config.rules))

    def _opened(self, config: Config) -> tuple[dict[str, Channel], tuple[str, ...]]:
        channels: dict[str, Channel] = {}
        problems = [str(problem) for problem in config.problems]
        for name, given in config.channels.items():
            try:
                channels[name] = self.channel(name, given)
            except BadChannel as error:
                problems.append(f"channels.{name}.{error}")
        return channels, tuple(problems)

    def channel(self, name: str, config: ChannelConfig) -> Channel:
        """Raises BadChannel."""
        return channel_for(name, config, allow_private=bool(self._settings.allow_private_webhooks))

    def _tell(self) -> None:
        for problem in self.problems:
            log.error("alerts: %s", problem)
        for warning in self.config.warnings:
            log.warning("alerts: %s", warning)

    def _ask(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        with self._store.reader(None, _LIMITS) as reader:
            rows: Sequence[Sequence[Any]] = reader.query(sql, parameters=dict(params)).result_rows
        return rows


def _stamp(file: Path | None) -> tuple[int, int] | None:
    """What changes when a file is written."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None
