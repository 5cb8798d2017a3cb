"""The writer's tables: temporary ones of its connection's session, so that writers don't meet and one that dies leaves nothing behind."""

import time
from collections.abc import Generator, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.migrate import statements
from tallystick.ingest.store import error_name, read_sql, scalar
from tallystick.schema.dialects import columns, quote
from tallystick.schema.envelope import COLUMNS
from tallystick.schema.normalise import filled_columns_sql, normalise_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SESSION: Final = {
    # Analysing the statements costs more than running them on a small batch; these searches find nothing in them.
    "optimize_and_compare_chain": 0,
    "optimize_extract_common_expressions": 0,
    "optimize_min_equality_disjunction_chain_length": 1000,
    "compile_expressions": 0,
    # A batch goes in as one part for each month, or not at all.
    "min_insert_block_size_rows": 10_000_000,
    "min_insert_block_size_bytes": 0,
    "max_insert_block_size": 10_000_000,
    "max_partitions_per_insert_block": 0,
    # Twice what a full batch takes. A payload of countless tiny things takes more, and is found and rejected.
    "max_memory_usage": 450 << 20,
}

_DECODE: Final = {
    "format_schema_source": "string",
    "format_schema": files("tallystick.schema").joinpath("otlp.proto").read_text(encoding="utf-8"),
    "format_schema_message_name": "Batch",
    # Each `Batch` of the stream is a block of its own.
    "max_block_size": 1,
    "max_insert_block_size": 1,
    "min_insert_block_size_rows": 1,
}

_ONE_THREAD: Final = "query_plan_enable_optimizations = 0, max_threads = 1, min_insert_block_size_rows = 1"
"""Block by block as they were decoded: what that takes of memory doesn't grow with the batch."""

_STAGE: Final = "INSERT INTO staged SELECT * FROM normalised SETTINGS"

_BEYOND: Final = "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"
"""What `normalised` says where a batch fills a column that it doesn't look for."""

_ALWAYS: Final = frozenset({"staged", "near"})
"""Tables that every batch fills."""

_IDLE_S: Final = 20.0
"""A server forgets a session, and its tables, after a minute without a request: after so many seconds it is asked whether it did."""


class WorkTables:
    """otlp_in, staged, mixed, near, rivals, lost and heirs of schema/sql/work.sql.

    payloads: as Store's. There a batch is a file, which is decoded block by block as it is flattened; without, otlp_in holds it decoded in between.
    """

    def __init__(self, client: "Client", payloads: Path | None) -> None:
        self._client = client
        self._file = None if payloads is None else payloads / f"{uuid4().hex}.batch"
        self._source = "otlp_in" if self._file is None else f"file({quote(str(self._file))}, 'Protobuf', {quote(COLUMNS)})"
        settings = {} if self._file is None else _DECODE
        self._settings = ", ".join([_ONE_THREAD, *(f"{name} = {quote(str(value))}" for name, value in settings.items())])
        self._columns: frozenset[str] = frozenset()
        """That a batch has filled so far: `normalised` looks for no others."""
        self._script = read_sql("work")
        for name, text in {
            "otlp_in": f"CREATE TEMPORARY TABLE otlp_in ({COLUMNS}) ENGINE = Memory" if self._file is None else "",
            "normalise": normalise_sql(self._source),
            "near": read_sql("near").replace("{{processes}}", "").replace("{{tenants}}", "''"),
            "rivals": read_sql("rivals"),
        }.items():
            self._script = self._script.replace("{{" + name + "}}", text)
        self._filled: set[str] | None = None
        self._used_at = 0.0

    def ready(self) -> None:
        """Empty them; make them where they aren't there (any more)."""
        if self._filled is not None and time.monotonic() - self._used_at > _IDLE_S and not self._there():
            self._filled = None
        if self._filled is None:
            self._client.command("SET " + ", ".join(f"{name} = {value}" for name, value in _SESSION.items()))
            for statement in statements(self._script):
                self._client.command(statement)
            self._look_for_columns()
        for table in sorted(self._filled or ()):
            self._client.command(f"TRUNCATE TABLE {table}")
        self._filled = set(_ALWAYS)

    def rest(self) -> None:
        """A batch is done."""
        self._used_at = time.monotonic()

    def distrust(self) -> None:
        """A batch failed: what they hold, and whether the session is still there, isn't known."""
        self._filled = None

    def stage(self, batches: Generator[bytes, None, None]) -> None:
        """Fill `staged` with the model calls of a stream of `Batch` messages, each after its length."""
        if self._file is None:
            self._client.raw_insert("otlp_in", ["envelopes"], batches, fmt="Protobuf", settings=_DECODE)
            self._normalise()
            self._client.command("TRUNCATE TABLE otlp_in")
            return
        try:
            with self._file.open("wb") as file:
                file.writelines(batches)
            self._normalise()
        finally:
            self._file.unlink(missing_ok=True)

    def _normalise(self) -> None:
        stage = f"{_STAGE} {self._settings}"
        try:
            self._client.command(stage)
        except ClickHouseError as error:
            if error_name(error) != _BEYOND:
                raise
            self._client.command("TRUNCATE TABLE staged")
            rows = self._client.query(f"{filled_columns_sql(self._source)} SETTINGS {self._settings}").result_rows
            self._columns |= {columns().name(number) for (number,) in rows if number}
            self._look_for_columns()
            self._client.command(stage)

    def _look_for_columns(self) -> None:
        self._client.command("DROP TEMPORARY VIEW IF EXISTS normalised")
        # A view: parsing its 27 kB for every batch would cost 20 ms.
        self._client.command(f"CREATE TEMPORARY VIEW normalised AS {normalise_sql(self._source, self._columns)}")

    def fill(self, table: str, select: str) -> None:
        self._note(table)
        self._client.command(f"INSERT INTO {table} {select}")

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        self._note(table)
        insert_rows(self._client, table, rows)

    def _note(self, table: str) -> None:
        if self._filled is not None:
            self._filled.add(table)

    def _there(self) -> bool:
        # The one that is made last.
        return bool(scalar(self._client, "EXISTS TEMPORARY TABLE heirs"))


def insert_rows(client: "Client", table: str, rows: Iterable[Sequence[Any]], columns: Sequence[str] | None = None) -> None:
    """As text: the client's own insert loads numpy and pandas, a second and 100 MB of them."""
    client.raw_insert(table, columns, _stream(rows), fmt="TabSeparated")


def _stream(rows: Iterable[Sequence[Any]]) -> Generator[bytes, None, None]:
    # The client sends bytes again where the connection broke after they had arrived; what a generator yielded it doesn't.
    yield b"".join(tab_separated(row) for row in rows)


def tab_separated(row: Sequence[Any]) -> bytes:
    """A row in ClickHouse's TabSeparated format."""
    return b"\t".join(_field(value) for value in row) + b"\n"


def _field(value: Any) -> bytes:
    match value:
        case bytes():
            return b"".join(b"\\x%02X" % byte for byte in value)
        case str():
            return (
                value.encode()
                .replace(b"\\", b"\\\\")
                .replace(b"\t", b"\\t")
                .replace(b"\n", b"\\n")
                .replace(b"\r", b"\\r")
                .replace(b"\0", b"\\0")
            )
        case tuple():
            return b"[" + b",".join(_element(item) for item in value) + b"]"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S.%f").encode()
        case Decimal():
            return format(value, "f").encode()
        case int():
            return str(int(value)).encode()
        case _:
            raise TypeError(f"a {type(value).__name__} isn't written as TabSeparated")


def _element(item: Any) -> bytes:
    return b"'" + _field(item).replace(b"'", b"\\'") + b"'" if isinstance(item, str) else _field(item)
