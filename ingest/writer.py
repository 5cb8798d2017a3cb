"""The writer: payloads in, ledger rows out. The spans themselves are only ever touched by the engine."""

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.accounts import Account
from tallystick.ingest.errors import PoisonBatch, StoreUnavailable
from tallystick.ingest.flows import Became, Flows, Origin
from tallystick.ingest.payload import Limits, PayloadError, check_protobuf
from tallystick.ingest.same_call import Identity, Rival, Verdict, judge
from tallystick.ingest.store import Store, error_name, read_sql, scalar
from tallystick.ingest.turns import LocalTurns, Turns
from tallystick.ingest.work import WorkTables, insert_rows
from tallystick.schema.dialects import quote
from tallystick.schema.envelope import batch, envelope
from tallystick.schema.models import Seen

log = logging.getLogger(__name__)

_UNREADABLE: Final = (
    "PROTOBUF",
    "CANNOT_PARSE",
    "INCORRECT_DATA",
    "ATTEMPT_TO_READ_AFTER_EOF",
    "CANNOT_READ_ALL_DATA",
    "UNKNOWN_PROTOBUF_FORMAT",
)

_BLOCK_SPANS: Final = 16_000
"""Spans that are decoded and normalised at once: what that takes of memory doesn't grow with the batch."""

_WARY_S: Final = 60.0
"""After a batch that the engine couldn't read, batches are checked first for so long: whoever sends such spans sends more of them."""

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


@dataclass(frozen=True)
class Item:
    """One accepted request: a payload whose frame was checked, and what it must not be trusted for.

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
    """Writes batches, from the thread that makes it. Others may write to the same ledger at the same time: turns are taken with them."""

    def __init__(
        self, store: Store, prices: Prices, turns: Turns | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client = store.client()
        self._prices = prices
        self._turns = LocalTurns() if turns is None else turns
        self._clock, self._wary_until = clock, 0.0
        self._priced: set[Seen] = set()
        self._work = WorkTables(client, store.payloads)
        self._flows = Flows(client)
        self._scopes = Scopes([] if self._turns.shared else client.query(read_sql("scopes")).result_rows)
        self._sql = {
            name: read_sql(name)
            for name in (
                "survey", "told_scopes", "near", "repeats", "rivals", "suspects", "enter", "void", "cost", "cost_join",
            )
        }  # fmt: skip

    def price_by(self, prices: Prices) -> None:
        """From the next batch on. Between two batches, from their thread."""
        if prices.id != self._prices.id:
            self._priced.clear()
        self._prices = prices

    def write(self, items: Sequence[Item]) -> Written:
        """Enter a batch; on return it is on disk. Raises PoisonBatch or StoreUnavailable; what was entered until then isn't doubled by a repetition.

        The engine is the first to read the spans. Where it can't, the batch is entered without those that nobody can.
        """
        if self._clock() < self._wary_until:
            return self._write_sifted([_sifted(item) for item in items])
        try:
            return self._attempt(items)
        except PoisonBatch as error:
            self._wary_until = self._clock() + _WARY_S
            sifted = [_sifted(item) for item in items]
            log.warning("a batch can't be read (%s); for %.0f s all spans are checked before they are entered", error, _WARY_S)
            if not any(rejected for _, rejected in sifted):
                raise
        return self._write_sifted(sifted)

    def _write_sifted(self, sifted: Sequence[tuple[Item, dict[str, int]]]) -> Written:
        written = self._attempt([item for item, _ in sifted])
        for outcome, (_, rejected) in zip(written.outcomes, sifted, strict=True):
            outcome.rejected = dict(Counter(outcome.rejected) + Counter(rejected))
        return written

    def _attempt(self, items: Sequence[Item]) -> Written:
        try:
            written = self._write(items)
            self._work.rest()
            return written
        except BaseException as error:
            self._work.distrust()
            if isinstance(error, OSError):
                raise StoreUnavailable(error.strerror or type(error).__name__) from error
            if not isinstance(error, ClickHouseError):
                raise
            # The embedded engine puts what a failed statement left behind in front of the next answer of its connection.
            with contextlib.suppress(ClickHouseError):
                self._client.command("SELECT 1")
            name = error_name(error)
            if is_poison(name, str(error)):
                raise PoisonBatch(name) from error
            raise StoreUnavailable(name) from error

    def _write(self, items: Sequence[Item]) -> Written:
        self._work.ready()
        self._stage(items)
        survey = self._client.query(self._sql["survey"]).result_rows
        outcomes = [Outcome() for _ in items]
        became: list[dict[str, Became]] = [{} for _ in items]
        seen: set[Seen] = set()
        told: set[tuple[str, str, str]] = set()
        for (
            number, problem, tenant, process, scope, provider, request_model, response_model, service_tier, service, spans, _,
        ) in survey:  # fmt: skip
            became[number][service] = became[number].get(service, Became()).and_more(spans, rejected=bool(problem))
            if problem:
                rejected = outcomes[number].rejected
                rejected[problem] = rejected.get(problem, 0) + spans
            else:
                outcomes[number].calls += spans
                seen.add(Seen(provider, request_model, response_model, service_tier))
                told.add((tenant, process, scope))
        calls = sum(outcome.calls for outcome in outcomes)
        written = Written(outcomes, 0, 0, 0)
        if calls:
            self._price(seen)
            written = self._write_calls(survey, told, outcomes, calls)
        # Last of all: what they say is done by then.
        earliest = min((row[-1] for row in survey if not row[1]), default=None)
        self._flows.write(items, became, entered=written.entered, earliest=earliest)
        return written

    def _write_calls(
        self, survey: Sequence[Sequence[Any]], told: set[tuple[str, str, str]], outcomes: list[Outcome], calls: int
    ) -> Written:
        # To look and to enter what follows from it is one step to all other writers. Until here nothing depended on them.
        with self._turns.take() as ours:
            verdict, new, repeats = self._look({row[2] for row in survey}, told, calls)
            if new or verdict.lost:
                self._enter(verdict, ours, repeats=repeats)
        return Written(outcomes, new, sum(verdict.lost.values()), calls - new)

    def _look(self, tenants: set[str], told: set[tuple[str, str, str]], calls: int) -> tuple[Verdict, int, bool]:
        """Which spans of the batch tell of a call that stands already or is told of better; how many are new calls; whether any two needed comparing."""
        for row in told | self._share(told):
            self._scopes.note(*row)
        mixed = self._scopes.mixed({row[:2] for row in told})
        self._find_near(tenants, mixed)
        if not mixed and not scalar(self._client, self._sql["repeats"]):
            return Verdict(), calls, False
        self._work.fill("rivals", self._sql["rivals"])
        new = int(scalar(self._client, "SELECT count() FROM rivals WHERE NOT stored"))
        verdict = judge(rival(row) for row in self._client.query(self._sql["suspects"]).result_rows)
        return verdict, new - sum(not stored for stored in verdict.lost.values()), True

    def _share(self, told: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
        """Tell other writers which instrumentations meter the batch's processes; what they told of these."""
        if not self._turns.shared:
            return set()
        rows = self._client.query(self._sql["told_scopes"]).result_rows
        new = told - {tuple(row[:3]) for row in rows if not row[3]}
        if new:
            insert_rows(self._client, "instrumentations", sorted(new), ("tenant", "process", "instrumentation"))
        return {tuple(row[:3]) for row in rows}

    def _stage(self, items: Sequence[Item]) -> None:
        self._work.stage(_stream(items))

    def _price(self, seen: set[Seen]) -> None:
        """Give prices to models that are seen for the first time."""
        # Names are the senders' to choose: so many at a time, the rest when they are seen again.
        new = sorted(seen - self._priced)[:_NEW_MODELS]
        if len(self._priced) > _KNOWN_MODELS:
            self._priced.clear()
        rows = self._prices.rows(new) if new else []
        if rows:
            insert_rows(self._client, "prices", rows)
        self._priced.update(new)

    def _find_near(self, tenants: set[str], mixed: set[tuple[str, str]]) -> None:
        if mixed:
            self._work.insert("mixed", sorted(mixed))
        condition = "OR (tenant, process) IN (SELECT tenant, process FROM mixed)" if mixed else ""
        sql = self._sql["near"].replace("{{processes}}", condition).replace("{{tenants}}", ", ".join(map(quote, sorted(tenants))))
        self._work.fill("near", sql)

    def _enter(self, verdict: Verdict, ours: str, *, repeats: bool) -> None:
        # Where every trace is new and there once, so is every span.
        unseen = "(tenant, trace_id, span_id) NOT IN (SELECT tenant, trace_id, span_id FROM near WHERE entry = 'call')"
        unseen, once = (unseen, "LIMIT 1 BY tenant, trace_id, span_id") if repeats else ("1", "")
        columns, heirs = "*", ""
        join = self._sql["cost_join"].replace("{book:String}", quote(self._prices.id))
        if verdict.lost:
            self._work.insert("lost", [(*identity, stored) for identity, stored in verdict.lost.items()])
            unseen += " AND (tenant, trace_id, span_id) NOT IN (SELECT tenant, trace_id, span_id FROM lost)"
        if verdict.heirs:
            self._work.insert("heirs", [(*identity, *heir.who, *heir.what) for identity, heir in verdict.heirs.items()])
            inherited = ", ".join(f"if(h.span_id = staged.span_id, h.{name}, staged.{name}) AS {name}" for name in _INHERITED)
            columns = f"staged.* REPLACE ({inherited})"
            heirs = (
                "LEFT JOIN heirs AS h ON staged.tenant = h.tenant AND staged.trace_id = h.trace_id AND staged.span_id = h.span_id"
            )
        sql = self._sql["enter"]
        if any(verdict.lost.values()):
            sql = f"{sql}\n{self._sql['void']}"
        for name, text in {
            "turn": ours,
            "columns": columns,
            "heirs": heirs,
            "cost": self._sql["cost"],
            "unseen": unseen,
            "once": once,
            "join": join,
        }.items():
            sql = sql.replace("{{" + name + "}}", text)
        self._client.command(sql)


def _sifted(item: Item) -> tuple[Item, dict[str, int]]:
    """What can be read of an item, and of the rest reason → number of spans."""
    try:
        payload = check_protobuf(item.data, Limits(len(item.data), item.spans))
    except PayloadError:
        return replace(item, data=b"", spans=0, accounts=()), {"can't be decoded": item.spans}
    if not payload.rejected:
        return item, {}
    return replace(item, data=payload.data, spans=payload.spans, accounts=payload.accounts), payload.rejected


def is_poison(name: str, message: str) -> bool:
    """Whether it would come again with the same batch. A server may also lack memory for what others do at the moment."""
    if name == "MEMORY_LIMIT_EXCEEDED":
        return re.search(r"query\)? memory limit|limit \(for query\)", message, re.IGNORECASE) is not None
    return any(part in name for part in _UNREADABLE)


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
