"""Budgets and alerts beside the receiver: what is in force, the evaluations, and the outbox."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tallystick.alerts.channels import Channel
from tallystick.alerts.channels.open import channel_for
from tallystick.alerts.config import Config, load_config, with_budgets
from tallystick.alerts.config_channels import ChannelConfig
from tallystick.alerts.config_yaml import ConfigError, Problem
from tallystick.alerts.database import default_url
from tallystick.alerts.definitions import BUDGET, Definition
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.scheduler import Scheduler
from tallystick.alerts.tick import Evaluator
from tallystick.ingest.store import Store
from tallystick.settings import Settings

log = logging.getLogger(__name__)

_LIMITS: Final[Mapping[str, int]] = {"max_execution_time": 60, "max_threads": 2}
"""What a query of ours may take."""

_FILE: Final = "configuration"
"""Who the author is of what the file says."""


@dataclass(frozen=True)
class InForce:
    """What alerts go by: `config` is the file's with the budgets of `made`, which were made by API, by name.

    file: the file's alone. channels: those that can be used. unread: why the file, which was changed, can't be read; the last one holds.
    """

    file: Config
    config: Config
    channels: Mapping[str, Channel]
    made: Mapping[str, Definition]
    unread: tuple[Problem, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that keeps parts of it out."""
        return (*self.unread, *self.config.problems)


class Alerts:
    """What alerts are in this process: `start` begins to evaluate and to deliver, `stop` finishes what is under way.

    url: where this server listens, None where nothing is shown. evaluates: whether budgets are judged and messages delivered here; elsewhere a
    process with `alerts run` does so. holder: this replica's name, by which it knows a lease to be its own; None is one that no other has.
    Raises ConfigError or OSError where the file can't be read at all, LedgerError where the alert ledger can't
    be opened.
    """

    def __init__(
        self, store: Store, settings: Settings, url: str | None, *, evaluates: bool = True, holder: str | None = None
    ) -> None:
        self._store, self._settings, self._evaluates = store, settings, evaluates
        self._lock = threading.Lock()
        self._told: frozenset[Problem] = frozenset()
        stamp = file_stamp(settings.config)
        file, channels = self._read()
        self.ledger = Ledger(settings.alerts_url or default_url(settings.data))
        self._seen = (stamp, self.ledger.definitions.version())
        self._in_force = self._with_made(InForce(file, file, channels, {}))
        self._judged = self._in_force
        self.outbox = Outbox(self.ledger, channels)
        self._evaluator = Evaluator(
            self.ledger, self.ask, self._judged.config, holder=holder or f"{socket.gethostname()}:{secrets.token_hex(8)}", author=_FILE,
            page=settings.public_url or url, kept=timedelta(days=settings.retention_days) if settings.retention_days else None,
        )  # fmt: skip
        self._evaluator.use(self._judged.config, _authors(self._judged))
        every = timedelta(seconds=settings.alerts_every_s or 10)
        self.scheduler = Scheduler(self._evaluator, lambda: self.outbox, every, refresh=self._refresh)

    @property
    def on(self) -> bool:
        """Whether anything is evaluated here."""
        return self._evaluates and bool(self._settings.alerts_every_s)

    @property
    def known(self) -> InForce:
        """What was in force when it was looked at last."""
        return self._in_force

    def start(self) -> None:
        if self.on:
            self.outbox.start()
            self.scheduler.start()

    def stop(self) -> None:
        if self.on:
            self.scheduler.stop()
            if not self.outbox.stop():
                log.warning("a channel was still sending; its message may be sent again")
        self.ledger.close()

    def in_force(self) -> InForce:
        """As it is now: the file and the budgets made by API are read again where they were changed. From any thread. Raises LedgerDown."""
        with self._lock:
            stamp, version = file_stamp(self._settings.config), self.ledger.definitions.version()
            if (stamp, version) != self._seen:
                old = self._in_force
                self._in_force = self._with_made(old if stamp == self._seen[0] else self._changed(old))
                self._seen = (stamp, version)
            return self._in_force

    def channel(self, name: str, config: ChannelConfig) -> Channel:
        """Raises BadChannel."""
        return channel_for(name, config, allow_private=bool(self._settings.allow_private_webhooks))

    def loaded(self, text: str) -> Config:
        """A configuration as this server would load it, but for what its templates hold. Raises ConfigError."""

        def tried(name: str, config: ChannelConfig) -> None:
            # Who sends the text might name any file of this machine.
            self.channel(name, config.model_copy(update={"template": None}))

        folder = self._settings.config.parent if self._settings.config else self._settings.data
        return load_config(text, os.environ, folder=folder, open_channel=tried)

    def ask(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        """A query of ours, of all tenants' rows."""
        with self._store.reader(None, _LIMITS) as reader:
            rows: Sequence[Sequence[Any]] = reader.query(sql, parameters=dict(params)).result_rows
        return rows

    def _refresh(self) -> None:
        """Judge, and deliver, by what is in force now."""
        now, before = self.in_force(), self._judged
        if now is before:
            return
        self._judged = now
        self._evaluator.use(now.config, _authors(now))
        if now.channels is not before.channels:
            self.outbox.stop()
            self.outbox = Outbox(self.ledger, now.channels)
            self.outbox.start()
        log.info("the configuration was changed: %d budgets, %d rules", len(now.config.budgets), len(now.config.rules))

    def _read(self) -> tuple[Config, Mapping[str, Channel]]:
        if self._settings.config is None:
            return Config(), {}
        channels: dict[str, Channel] = {}

        def opened(name: str, config: ChannelConfig) -> None:
            channels[name] = self.channel(name, config)

        return load_config(self._settings.config, os.environ, open_channel=opened), channels

    def _changed(self, old: InForce) -> InForce:
        """With the file as it is now; one that can't be read changes nothing."""
        try:
            file, channels = self._read()
        except (ConfigError, OSError) as error:
            log.error("the configuration was changed and can't be read; alerts go on with the last one: %s", error)
            told = Problem(str(self._settings.config), 0, 0, "", "can't be read; the last one that could be holds")
            return replace(old, unread=error.problems if isinstance(error, ConfigError) else (told,))
        same = dict(file.channels) == dict(old.file.channels)
        return InForce(file, file, old.channels if same else channels, old.made)

    def _with_made(self, given: InForce) -> InForce:
        """With the budgets made by API as they are now."""
        made = {one.subject: one for one in self.ledger.definitions.in_force(BUDGET)}
        config = with_budgets(given.file, {name: one.body or "{}" for name, one in made.items()})
        for problem in config.problems:
            if problem not in self._told:
                log.error("alerts: %s", problem)
        for warning in config.warnings:
            if warning not in self._told:
                log.warning("alerts: %s", warning)
        self._told = frozenset((*config.problems, *config.warnings))
        return replace(given, config=config, made=made)


def _authors(of: InForce) -> dict[str, str]:
    return {name: one.author for name, one in of.made.items() if name not in of.file.declared.names}


def file_stamp(file: Path | None) -> tuple[int, int] | None:
    """What changes when a file is written; None where it can't be looked at."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None
