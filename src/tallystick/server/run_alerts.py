"""`tallystick alerts run`: budgets and rules over a ledger that others fill, until SIGTERM."""

import contextlib
import secrets
import signal
import socket
import sys
import threading
from dataclasses import replace

import click

from tallystick.ingest.migrate import require_schema
from tallystick.server.alerts import Alerts
from tallystick.server.figures import show_alerts
from tallystick.server.health import Health
from tallystick.server.metrics import Metrics, Role
from tallystick.server.probe_schedules import ProbeSchedules
from tallystick.server.run_api import answers
from tallystick.server.serving import log_to_stderr
from tallystick.server.stores import open_ledger
from tallystick.settings import Settings


def run_alerts(settings: Settings) -> None:
    """Judge and deliver until SIGTERM or Ctrl-C, then finish what is under way. Any number of these may run: one of them judges, all deliver.

    Raises StoreError, ConfigError, LedgerError, OSError (a port is taken).
    """
    log_to_stderr()
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    settings = replace(settings, data=settings.data.absolute(), config=settings.config and settings.config.absolute())
    settings.data.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_ledger(settings)))
        require_schema(store)
        metrics = Metrics(Role.ALERTS)
        stack.callback(metrics.close)
        holder = f"{socket.gethostname()}:{secrets.token_hex(8)}"
        alerts = Alerts(store, settings, None, holder=holder)
        show_alerts(metrics, lambda: alerts.scheduler.pace, alerts.ledger)
        reachable = answers(store)

        def ready() -> str:
            if reason := reachable():
                return reason
            failing = alerts.scheduler.pace.failing_since
            return f"budgets can't be judged since {failing:%Y-%m-%d %H:%M:%S} UTC" if failing else ""

        url = ""
        if settings.health_port:
            health = Health(settings.host, settings.health_port, ready, metrics.page)
            health.start()
            stack.callback(health.close)
            url = health.url
        alerts.start()
        stack.callback(alerts.stop)
        schedules = ProbeSchedules(settings, settings.url, alerts.ledger.leases, holder)
        schedules.start()
        stack.callback(schedules.stop)
        click.echo(f"ready {url}".strip())
        sys.stdout.flush()
        ended.wait()
