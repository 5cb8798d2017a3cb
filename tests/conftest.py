"""What tests of several areas share."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from server import Server

    from tallystick.attribution.user_sql import Result
    from tallystick.ingest.store import EmbeddedStore

# Modules beside the tests (`server`, `otlp`) can be imported by them, however pytest is started.
sys.path.insert(0, str(Path(__file__).parent))


_LONGEST = ("test_faults", "test_kill", "test_alerts_end_to_end", "test_scale", "test_ingest_life")
"""Files that take minutes: begun last, one would keep a worker busy long after the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """One running server for all tests that neither stop nor flood it. A test takes a tenant of its own (`server.key`)."""
    from server import Server

    with Server(tmp_path_factory.mktemp("shared") / "data", grpc=True) as running:
        yield running


@pytest.fixture(scope="session")
def chdb_store(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[EmbeddedStore]":
    """An empty ledger. chDB allows one data directory a process: every test that needs ClickHouse in its own process takes this one.

    Its engine has the product's configuration, and lets tests have databases of their own beside the ledger's.
    """
    import clickhouse_connect

    from tallystick.ingest.migrate import migrate
    from tallystick.ingest.store import open_store

    data = tmp_path_factory.mktemp("chdb")
    (data / "tests").mkdir()
    engine = files("tallystick.schema").joinpath("engine")
    (data / "tests" / "config.xml").write_text(engine.joinpath("config.xml").read_text().replace("{{data}}", str(data / "tests")))
    granted = "".join(f"<query>GRANT ALL ON {name}.*</query>" for name in ("alerting", "stand_in", "spend_queries", "migrating"))
    own = "<query>GRANT payloads</query>"
    users = engine.joinpath("users.xml").read_text().replace(own, own + granted)
    (data / "tests" / "users.xml").write_text(users)
    # The configuration of the first connection is the engine's.
    first = clickhouse_connect.get_client(
        dsn=f"chdb://{data / 'engine'}", chdb_options={"config-file": str(data / "tests" / "config.xml")}
    )
    before = Path.cwd()
    with open_store(data) as store:
        # The store moves into its directory; other tests name files from here.
        os.chdir(before)
        migrate(store, 0)
        yield store
    first.close()


@pytest.fixture(scope="session")
def chdb_path(chdb_store: "EmbeddedStore") -> Path:
    """Where its engine lives: for a test that wants a connection of its own."""
    return chdb_store.data / "engine"


@pytest.fixture(scope="session")
def chdb_client(chdb_store: "EmbeddedStore") -> "Client":
    """A connection to it with all rights, on the ledger's database."""
    return chdb_store.client()


Ask = Callable[..., "Result"]
"""(tenant, query, params=None, **settings) → what a user of that tenant is answered; tenant None sees all."""


@pytest.fixture(scope="session")
def ask(chdb_store: "EmbeddedStore") -> Ask:
    """SQL as users send it. There are 240 calls of October 2026, by turns of the tenants acme and globex; every sixth is unpriced."""
    from tallystick.attribution.user_sql import READER_SETTINGS, run

    rows = (Path(__file__).parent / "calls_of_october.sql").read_text(encoding="utf-8")
    chdb_store.client().command(rows)

    def asked(tenant: str | None, query: str, params: Mapping[str, Any] | None = None, **settings: int) -> "Result":
        with chdb_store.reader(tenant, {**READER_SETTINGS, **settings}) as reader:
            return run(reader, query, params)

    return asked
