"""The writer: payloads in, ledger rows out. The spans themselves are only ever touched by the engine."""

import contextlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.accounts import Account
from tallystick.ingest.errors import PoisonBatch, StoreUnavailable
from tallystick.ingest.flows import Origin
from tallystick.ingest.migrate import statements
from tallystick.ingest.same_call import Identity, Rival, Verdict, judge
from tallystick.ingest.store import error_name, read_sql, scalar
from tallystick.schema.dialects import quote
from tallystick.schema.envelope import COLUMNS, batch, envelope
from tallystick.schema.models import Seen
from tallystick.schema.normalise import normalise_sql

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

_UNREADABLE: Final = (
    "MEMORY_LIMIT_EXCEEDED",
    "PROTOBUF",
    "CANNOT_PARSE",
    "INCORRECT_DATA",
    "ATTEMPT_TO_READ_AFTER_EOF",
    "CANNOT_READ_ALL_DATA",
    "UNKNOWN_PROTOBUF_FORMAT",
)

_STAGE: Final = """INSERT INTO work.staged SELECT * FROM work.normalised
SETTINGS query_plan_enable_optimizations = 0, max_threads = 1, min_insert_block_size_rows = 1"""
"""One thread, block by block as they were decoded: their order and what they take of memory stay as they are."""

_BLOCK_SPANS: Final = 16_000
"""Spans that are decoded and normalised at once: what that takes of memory doesn't grow with the batch."""

_NEW_MODELS: Final = 1_000
"""Models that are given prices in one batch: each takes up to 2 ms."""

_KNOWN_MODELS: Final = 100_000
"""Models that are remembered to have been given prices."""

_INHERITED: Final = (
    "customer",
    "feature",
    "agent",
    "team",
    "user",
    "session",
    "provider",
    "request_model",
    "response_model",
    "service_tier",
)
"""What a call has from a span that told of it, too, and lost: in the order of `Verdict.heirs`."""

_WORK_TABLES: Final = ("otlp_in", "staged", "mixed", "near", "rivals", "lost", "heirs")


@dataclass(frozen=True)
class Item:
    """One accepted request: a checked payload and what it must not be trusted for.

    origin: None where it came by OTLP into this process. accounts: of its resources, as its check told.
    """

    data: bytes
    spans: int
    tenant: str
    received_ns: int
    operator: bool = False
    origin: Origin | None = None
    accounts: tuple[Account, ...] = ()


@dataclass
class Outcome:
    """What became of a request's spans. rejected: reason → number; calls: spans that are model calls, repeated or not."""

    calls: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass
class Written:
    """What became of a batch. entered: new calls; voided: stored calls that a better span replaced; doubled: spans of calls that stand already."""

    outcomes: list[Outcome]
    entered: int
    voided: int
    doubled: int


class Prices(Protocol):
    """The price book, as far as the writer needs it."""

    @property
    def id(self) -> str:
        """The book's version, under which its rows stand."""
        ...

    def rows(self, seen: Iterable[Seen]) -> Sequence[Sequence[Any]]:
        """Rows of table `prices` for models as seen; none for those without a price."""
        ...


class Writer:
    """Writes batches through one connection, from one thread.

    voiding: is held while calls are voided, so that nothing else corrects them at that moment.
    """

    def __init__(self, client: "Client", prices: Prices, voiding: AbstractContextManager[object] | None = None) -> None:
        self._client = client
        self._prices = prices
        self._voiding = contextlib.nullcontext() if voiding is None else voiding
        self._priced: set[Seen] = set()
        for name, value in _SESSION.items():
            client.command(f"SET {name} = {value}")
        script = read_sql("work")
        for name, text in {
            "envelopes": COLUMNS,
            "normalise": normalise_sql("work.otlp_in"),
            "near": read_sql("near").replace("{{processes}}", "").replace("{{tenants}}", "''"),
            "rivals": read_sql("rivals"),
        }.items():
            script = script.replace("{{" + name + "}}", text)
        for statement in statements(script):
            client.command(statement)
        self._scopes = Scopes(client.query(read_sql("scopes")).result_rows)
        self._sql = {
            name: read_sql(name)
            for name in ("survey", "near", "repeats", "rivals", "suspects", "enter", "void", "cost", "cost_join")
        }
        self._decode = {
            "format_schema_source": "string",
            "format_schema": files("tallystick.schema").joinpath("otlp.proto").read_text(encoding="utf-8"),
            "format_schema_message_name": "Batch",
            # Each `Batch` of the stream is a block of its own.
            "max_block_size": 1,
            "max_insert_block_size": 1,
            "min_insert_block_size_rows": 1,
        }

    def write(self, items: Sequence[Item]) -> Written:
        """Enter a batch; on return it is on disk. Raises PoisonBatch or StoreUnavailable; what was entered until then isn't doubled by a repetition."""
        try:
            return self._write(items)
        except ClickHouseError as error:
            # The embedded engine puts what a failed statement left behind in front of the next answer of its connection.
            with contextlib.suppress(ClickHouseError):
                self._client.command("SELECT 1")
            name = error_name(error)
            if any(part in name for part in _UNREADABLE):
                raise PoisonBatch(name) from error
            raise StoreUnavailable(name) from error
        except OSError as error:
            raise StoreUnavailable(error.strerror or type(error).__name__) from error

    def _write(self, items: Sequence[Item]) -> Written:
        for table in _WORK_TABLES:
            self._client.command(f"TRUNCATE TABLE work.{table}")
        self._stage(items)
        survey = self._client.query(self._sql["survey"]).result_rows
        outcomes = [Outcome() for _ in items]
        seen: set[Seen] = set()
        for number, problem, tenant, process, scope, provider, request_model, response_model, service_tier, spans in survey:
            if problem:
                rejected = outcomes[number].rejected
                rejected[problem] = rejected.get(problem, 0) + spans
            else:
                outcomes[number].calls += spans
                seen.add(Seen(provider, request_model, response_model, service_tier))
                self._scopes.note(tenant, process, scope)
        calls = sum(outcome.calls for outcome in outcomes)
        if not calls:
            return Written(outcomes, 0, 0, 0)
        self._price(seen)
        mixed = self._scopes.mixed({(row[2], row[3]) for row in survey})
        self._find_near({row[2] for row in survey}, mixed)
        verdict, entered = Verdict(), calls
        repeats = bool(mixed) or bool(scalar(self._client, self._sql["repeats"]))
        if repeats:
            self._client.command(f"INSERT INTO work.rivals {self._sql['rivals']}")
            new = int(scalar(self._client, "SELECT count() FROM work.rivals WHERE NOT stored"))
            verdict = judge(rival(row) for row in self._client.query(self._sql["suspects"]).result_rows)
            entered = new - sum(not stored for stored in verdict.lost.values())
        if entered or verdict.lost:
            self._enter(verdict, repeats=repeats)
        return Written(outcomes, entered, sum(verdict.lost.values()), calls - entered)

    def _stage(self, items: Sequence[Item]) -> None:
        self._client.raw_insert("work.otlp_in", ["envelopes"], _stream(items), fmt="Protobuf", settings=self._decode)
        self._client.command(_STAGE)
        self._client.command("TRUNCATE TABLE work.otlp_in")

    def _price(self, seen: set[Seen]) -> None:
        """Give prices to models that are seen for the first time."""
        # Names are the senders' to choose: so many at a time, the rest when they are seen again.
        new = sorted(seen - self._priced)[:_NEW_MODELS]
        if len(self._priced) > _KNOWN_MODELS:
            self._priced.clear()
        rows = self._prices.rows(new) if new else []
        if rows:
            self._insert("prices", rows)
        self._priced.update(new)

    def _insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        # As text: the client's own insert loads numpy and pandas, a second and 100 MB of them.
        self._client.raw_insert(table, None, b"".join(tab_separated(row) for row in rows), fmt="TabSeparated")

    def _find_near(self, tenants: set[str], mixed: set[tuple[str, str]]) -> None:
        if mixed:
            self._insert("work.mixed", sorted(mixed))
        condition = "OR (tenant, process) IN (SELECT tenant, process FROM work.mixed)" if mixed else ""
        sql = self._sql["near"].replace("{{processes}}", condition).replace("{{tenants}}", ", ".join(map(quote, sorted(tenants))))
        self._client.command(f"INSERT INTO work.near {sql}")

    def _enter(self, verdict: Verdict, *, repeats: bool) -> None:
        # Where every trace is new and there once, so is every span.
        unseen = "(tenant, trace_id, span_id) NOT IN (SELECT tenant, trace_id, span_id FROM work.near WHERE entry = 'call')"
        unseen, once = (unseen, "LIMIT 1 BY tenant, trace_id, span_id") if repeats else ("1", "")
        columns, heirs = "*", ""
        join = self._sql["cost_join"].replace("{book:String}", quote(self._prices.id))
        if verdict.lost:
            self._insert("work.lost", [(*identity, stored) for identity, stored in verdict.lost.items()])
            unseen += " AND (tenant, trace_id, span_id) NOT IN (SELECT tenant, trace_id, span_id FROM work.lost)"
        if verdict.heirs:
            self._insert("work.heirs", [(*identity, *heir.who, *heir.what) for identity, heir in verdict.heirs.items()])
            inherited = ", ".join(f"if(h.span_id = staged.span_id, h.{name}, staged.{name}) AS {name}" for name in _INHERITED)
            columns = f"staged.* REPLACE ({inherited})"
            heirs = "LEFT JOIN work.heirs AS h ON staged.tenant = h.tenant AND staged.trace_id = h.trace_id AND staged.span_id = h.span_id"
        sql = self._sql["enter"]
        for name, text in {
            "columns": columns,
            "heirs": heirs,
            "cost": self._sql["cost"],
            "unseen": unseen,
            "once": once,
            "join": join,
        }.items():
            sql = sql.replace("{{" + name + "}}", text)
        if any(verdict.lost.values()):
            with self._voiding:
                self._client.command(f"{sql}\n{self._sql['void']}")
        else:
            self._client.command(sql)


class Scopes:
    """Which instrumentations meter which process: where there are two, one call may be told of twice in different traces."""

    _MOST: Final = 100_000

    def __init__(self, known: Iterable[Sequence[str]]) -> None:
        self._of: dict[tuple[str, str], str | None] = {}
        """The instrumentation of a process, None where there are several."""
        for tenant, process, scope in known:
            self.note(tenant, process, scope)

    def note(self, tenant: str, process: str, scope: str) -> None:
        if self._of.setdefault((tenant, process), scope) != scope:
            self._of[tenant, process] = None
        if len(self._of) > self._MOST:
            del self._of[next(iter(self._of))]

    def mixed(self, processes: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of `processes`, (tenant, process), that more than one instrumentation meters."""
        return {process for process in processes if self._of.get(process, "") is None}


def _stream(items: Sequence[Item]) -> Generator[bytes, None, None]:
    """The batch for the engine, in messages of about `_BLOCK_SPANS` spans."""
    envelopes: list[tuple[bytes, bytes]] = []
    spans = 0
    for number, item in enumerate(items):
        envelopes.append(
            envelope(item.data, tenant=item.tenant, received_unix_nano=item.received_ns, number=number, operator=item.operator)
        )
        spans += item.spans
        if spans >= _BLOCK_SPANS or number == len(items) - 1:
            yield from batch(envelopes)
            envelopes, spans = [], 0


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
        case _:
            return str(int(value)).encode()


def _element(item: Any) -> bytes:
    if isinstance(item, str):
        return b"'" + _field(item).replace(b"'", b"\\'") + b"'"
    return format(item, "f").encode() if isinstance(item, Decimal) else str(int(item)).encode()


def rival(row: Sequence[Any]) -> Rival:
    """From a row in the order of schema/sql/rivals.sql, without response_key."""
    (
        stored, tenant, trace_id, span_id, parent, response_id, process, service, scope, layer, is_log, begin, end, model, total, output, source, detail,
        customer, feature, agent, team, user, session, provider, request_model, response_model, service_tier,
    ) = row  # fmt: skip
    return Rival(
        bool(stored), Identity(tenant, trace_id, span_id), parent, response_id, process, service, scope, layer, bool(is_log), begin, end, model, total,
        output, source, detail, (customer, feature, agent, team, user, session),
        (provider, request_model, response_model, service_tier),
    )  # fmt: skip
