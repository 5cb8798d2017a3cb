"""`tallystick api`: questions, the page and corrections over a ledger that others fill, until SIGTERM."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.ingest.errors import StoreError
from tallystick.ingest.keys import KeyStore
from tallystick.ingest.migrate import require_schema
from tallystick.ingest.store import Store, error_name
from tallystick.ingest.turns import open_turns
from tallystick.server.alerts import Alerts
from tallystick.server.app import create_app
from tallystick.server.auth import Door
from tallystick.server.corrections import Desk, open_corrections
from tallystick.server.figures import show_store
from tallystick.server.measured_prices import PresentBook
from tallystick.server.metrics import Metrics, Role
from tallystick.server.probe_schedules import ProbeSchedules
from tallystick.server.serving import address, listen, log_to_stderr, serve
from tallystick.server.stores import open_ledger
from tallystick.server.waiting import waiting
from tallystick.settings import Settings


def run_api(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Any number of these may run; budgets are judged by `alerts run` alone.

    Raises StoreError, PriceFileError, ConfigError, LedgerError, OSError (a port is taken).
    """
    log_to_stderr()
    settings = replace(settings, data=settings.data.absolute(), config=settings.config and settings.config.absolute())
    settings.data.mkdir(parents=True, exist_ok=True)
    prices = load_prices_file(settings.config) if settings.config else UserPrices()
    keys = KeyStore(settings.data, settings.keys)
    keys.load()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_ledger(settings)))
        require_schema(store)
        book = PresentBook(store, prices)
        desk = Desk(open_corrections(store, open_turns(store)), book.book)
        listening = stack.enter_context(contextlib.closing(listen(settings.host, settings.port)))
        url = f"http://{address(settings.host, listening.getsockname()[1])}"
        alerts = Alerts(store, settings, url, evaluates=False)
        stack.callback(alerts.stop)
        metrics = Metrics(Role.API)
        stack.callback(metrics.close)
        show_store(metrics, store)
        app = create_app(
            store, None, None, Door(keys, settings.host), alerts, book=book, desk=desk, config=settings.config, ready=answers(store),
            waiting=lambda: waiting(settings), retention_days=settings.retention_days, metrics=metrics, schedules=ProbeSchedules(settings, url, None),
        )  # fmt: skip
        serve(uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False), listening, url)


def answers(store: Store) -> Callable[[], str]:
    """What says whether the ledger can be asked: "", or why it can't."""

    def ready() -> str:
        try:
            store.each_host()[0].command("SELECT 1")
        except StoreError as error:
            return str(error)
        except ClickHouseError as error:
            return f"the ledger can't be asked: {error_name(error)}"
        return ""

    return ready
