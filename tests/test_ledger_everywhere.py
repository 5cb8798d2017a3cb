"""One ledger, wherever it stands: embedded, on a ClickHouse server, on two shards. What is asked of it is answered the same, to the last decimal.

Each is filled by the real pipeline with the same spans (recordings, traffic, some of both twice, calls that a better span tells of later), priced
anew, shared out, trued up, voided and undone.
"""

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from asked import NOW, of_example
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from otlp import request, span
from starlette.testclient import TestClient

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import read_prices
from tallystick.attribution.questions import Question, ask_query, questions
from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.client import result
from tallystick.ingest.keys import KeyStore, Role
from tallystick.ingest.migrate import migrate
from tallystick.ingest.payload import Limits, check_frame, decode
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import EmbeddedStore, Store
from tallystick.ingest.turns import Turns, open_turns
from tallystick.ingest.writer import Item, Writer
from tallystick.server.alerts import Alerts
from tallystick.server.app import create_app
from tallystick.server.auth import Door
from tallystick.server.corrections import Desk, open_corrections
from tallystick.server.measured_prices import PresentBook
from tallystick.settings import Settings
from tallystick.traffic import shipped
from tallystick.traffic.calls import Call, as_recorded, calls
from tallystick.traffic.files import open_trace
from tallystick.traffic.spans import Encoder

TENANT: Final = "everywhere"
"""The embedded engine of the tests' process has rows of other tests, too."""

BEGAN_NS: Final = 1_700_160_000 * 10**9
PERIOD: Final = {"since": "2023-11-01", "until": "2026-12-01"}
MONTH: Final = {"since": "2023-11-01", "until": "2023-12-01"}
PRICES: Final = (
    "prices: {discounts: [{provider: openai, percent: 3}]}",
    "prices: {models: [{provider: openai, model: 'gpt-*', per_million_tokens: {input: 0.3333, cache_read: 0.0307, output: 1.77}}]}",
)
"""As they are while calls arrive, then as they turn out to have been."""

CONFIG: Final = """
allocations:
  - {name: overhead, kind: overhead, percent: 20, over: [customer], scope: {tenant: everywhere}, set: {feature: overhead}, reason: hidden cost}
  - {name: fee, kind: fixed, amount: 10, over: team, by: calls, scope: {tenant: everywhere}}
budgets:
  - {name: all, amount: 100, period: {every: 48 months, start: 2023-01-01}, scope: {tenant: everywhere}, notify: []}
  - {name: each-customer, amount: 1, period: {every: 48 months, start: 2023-01-01}, scope: {tenant: everywhere}, each: customer, notify: []}
"""
OPENINFERENCE: Final = "openinference.instrumentation.openai"
SPANS: Final = Path(__file__).parent / "spans"


def recordings() -> Iterator[bytes]:
    for path in sorted(SPANS.glob("[!_]*/*.json")):
        body = json.dumps(json.loads(path.read_bytes())["otlp"]).encode()
        yield decode(body, "application/json", "", Limits(), check_frame).data


def traffic() -> Iterator[bytes]:
    """1,500 calls of an hour of November 2023, a third of them twice."""
    for path in shipped():
        trace = open_trace(path)
        if trace.dated:
            some = [call for call in islice(calls(trace, 6, as_recorded()), 750) if isinstance(call, Call)]
            yield from (Encoder().request(some[at : at + 250]) for at in (0, 250, 500, 0))


def told_twice(name: str) -> bytes:
    """30 calls, each by the span of this name: the inner one is the better one, and voids what the outer one told."""
    inner = name == "inner"
    began_ns, duration_ns = (BEGAN_NS + 10**6, 998_000_000) if inner else (BEGAN_NS, 10**9)
    spans = [
        span(f"twice-{n}", f"{name}-{n}", parent=f"outer-{n}" if inner else None, start_ns=began_ns, duration_ns=duration_ns,
             attributes={"gen_ai.response.id": f"chatcmpl-{n}", "tallystick.customer": "twice"})
        for n in range(30)
    ]  # fmt: skip
    return (request(*spans) if inner else request(*spans, scope=OPENINFERENCE)).SerializeToString()


def batches() -> Iterator[list[Item]]:
    bodies = [*recordings(), *traffic()]
    half = len(bodies) // 2
    for some in (bodies[: half + 5], [*bodies[half:], told_twice("outer")], [told_twice("inner")]):
        yield [_item(body, TENANT) for body in some]
    yield [_item(request(span("other", start_ns=BEGAN_NS)).SerializeToString(), "other")]


def _item(body: bytes, tenant: str) -> Item:
    checked = decode(body, "application/x-protobuf", "", Limits(), check_frame)
    return Item(checked.data, checked.spans, tenant, time.time_ns())


class Place(NamedTuple):
    """A ledger and an application over it. key: of TENANT's; without one, everything may be done."""

    http: TestClient
    key: str

    def get(self, path: str, **params: Any) -> Any:
        answer = self.http.get(path, params=params, headers={"authorization": f"Bearer {self.key}"})
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.headers["content-type"].startswith("application/json") else answer.text

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        question = {"query": query, "params": params or {}}
        answer = self.http.post("/v1/sql", json=question, headers={"authorization": f"Bearer {self.key}"})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return result(((one["name"], one["type"]) for one in told["columns"]), told["rows"], 0).dicts()

    def post(self, path: str, **body: Any) -> Any:
        """As an operator."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def correct(place: Place) -> None:
    """In every way there is."""
    repriced = place.post("/v1/corrections/reprice", **PERIOD, tenant=TENANT, reason="price list")
    assert repriced["changed"] > 100
    voided = span("twice-3", "inner-3")
    place.post("/v1/corrections/void", trace_id=voided.trace_id.hex(), span_id=voided.span_id.hex(), reason="load test")
    place.post("/v1/allocations/overhead", period="2023-11")
    fee = place.post("/v1/allocations/fee", period="2023-11")
    place.post(f"/v1/corrections/{fee['correction']['id']}/undo", reason="wrong month")
    invoice = [{"provider": "everywhere", "model": "m", "day": "2023-11-16", "cost_usd": "1.23", "decimals": 2}]
    place.post("/v1/reconcile", lines=invoice, true_up={"reason": "invoice 7", "spread": "none", "tenant": TENANT})


def report(place: Place, data: Path) -> None:
    key = KeyStore(data).create(TENANT, Role.MEMBER)
    outcomes = [
        {"id": f"t{n}", "outcome": "resolved", "success": n % 3 > 0, "at": "2023-11-16T20:00:00Z", "revenue_usd": "2.5", "customer": "twice",
         "trace_id": span(f"twice-{n}").trace_id.hex()} for n in range(20)
    ]  # fmt: skip
    for _ in range(2):
        answer = place.http.post("/v1/outcomes", json=outcomes, headers={"authorization": f"Bearer {key}"})
        assert answer.json() == {"accepted": 20, "rejected": []}


def opened(store: Store, turns: Turns, data: Path) -> Place:
    """The application over a ledger that others fill."""
    config = data / "tallystick.yaml"
    data.mkdir(parents=True)
    config.write_text(CONFIG, encoding="utf-8")
    settings = Settings.load({}, data=data, config=config)
    keys = KeyStore(data)
    key = keys.create(TENANT, Role.READER)
    keys.load()
    prices = read_prices(PRICES[1])
    book = PresentBook(store, prices)
    desk = Desk(open_corrections(store, turns), book.book)
    alerts = Alerts(store, settings, None, evaluates=False)
    app = create_app(store, None, None, Door(keys, "127.0.0.1"), alerts, book=book, desk=desk, config=config)
    return Place(TestClient(app, base_url="http://127.0.0.1"), key)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseCluster]:
    with ClickHouseCluster(tmp_path_factory.mktemp("shards")) as running:
        yield running


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, chdb_store: EmbeddedStore, shards: ClickHouseCluster
) -> Iterator[Mapping[str, Place]]:
    """The same ledger everywhere. On servers each role has its own user."""
    home = tmp_path_factory.mktemp("everywhere")
    with ExitStack() as stack:
        # A process has one embedded engine: here it is the ledger's.
        parsing = stack.enter_context(chdb_store.reader(None, READER_SETTINGS))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("tallystick.attribution.parsing._engine", lambda: parsing)
        one = stack.enter_context(ClickHouse(home / "one"))
        stores: dict[str, tuple[Store, Store]] = {"embedded": (chdb_store, chdb_store)}
        for name, servers, cluster in (("server", one, ""), ("shards", shards, CLUSTER)):
            admin, filling, asking = (
                ServerStore(servers.url(role), servers.password, cluster=cluster) for role in ("admin", "ingest", "api")
            )
            migrate(admin, 0)
            stores[name] = filling, asking
        made = {}
        for name, (ingest, api) in stores.items():
            turns = open_turns(ingest)
            writer = Writer(ingest, PriceBook(read_prices(PRICES[0])), turns)
            for batch in batches():
                writer.write(batch)
            made[name] = opened(api, turns if api is ingest else open_turns(api), home / name)
            report(made[name], home / name)
            correct(made[name])
        yield made


Ask = Callable[[Place], Any]
Places = Mapping[str, Place]


def same(places: Places, ask: Ask) -> Any:
    """What all answer."""
    answers = {name: ask(place) for name, place in places.items()}
    for name in ("server", "shards"):
        assert answers[name] == answers["embedded"], name
    return answers["embedded"]


def test_it_holds_what_was_sent_once(places: Places) -> None:
    rows = same(
        places, lambda place: place.sql("SELECT toString(entry) AS entry, count() AS n FROM charges GROUP BY ALL ORDER BY ALL")
    )
    entries = {row["entry"]: row["n"] for row in rows}
    assert entries.keys() == {"call", "void", "reprice", "allocation", "trueup"}
    assert entries["void"] >= 31
    assert entries["call"] > 1500 + 60


def charges(place: Place) -> list[dict[str, Any]]:
    rows, cursor = [], None
    while True:
        page = place.get("/v1/charges", limit=5000, **PERIOD, **({"cursor": cursor} if cursor else {}))
        rows += page["charges"]
        if (cursor := page["next"]) is None:
            return rows


def test_one_total(places: Places) -> None:
    """P10: rows, SQL, API and what budgets are judged by."""
    total = same(places, lambda place: place.sql("SELECT sum(cost_usd) AS cost FROM charges")[0]["cost"])
    for place in places.values():
        costs = [Decimal(row["cost_usd"]) for row in charges(place) if row["cost_usd"] is not None]
        assert sum(costs, Decimal(0)) == total
        assert Decimal(place.get("/v1/spend", by="customer", **PERIOD)["total"]["cost_usd"]) == total
        budgets = {one["name"]: one["values"] for one in place.http.get("/v1/budgets?values=10000").json()["budgets"]}
        assert Decimal(budgets["all"][0]["spent"]) == total
        assert sum(Decimal(one["spent"]) for one in budgets["each-customer"]) == total


def test_entries(places: Places) -> None:
    """But for what is each ledger's own: when it was entered, and what runs are called."""

    def ask(place: Place) -> list[str]:
        own = ("entered_at", "correction")
        return sorted(json.dumps({name: value for name, value in row.items() if name not in own}) for row in charges(place))

    assert len(same(places, ask)) > 2000


VARIOUS: Final = [
    "total",
    "customer",
    "customer,feature,agent,team",
    "model",
    "day",
    "hour",
    "tag:plan",
    "session",
    "price_id",
    "tenant,entry",
]


@pytest.mark.parametrize("by", VARIOUS)
def test_spend(places: Places, by: str) -> None:
    assert same(places, lambda place: place.get("/v1/spend", by=by, limit=1000, **PERIOD))["rows"]


APPROXIMATE: Final = re.compile(r"p\d\d_ms")
"""By t-digest, of which two merge into another one than one of both."""


def rows_of(question: Question, by: str | None) -> Ask:
    given = {**of_example(question), **({"by": [by]} if by else {})}
    given |= {name: [when] for name, when in PERIOD.items() if name in question.parameters}
    if "limit" in question.parameters:
        given["limit"] = ["1000"]
    given.pop("where", None)
    query = ask_query(question.name, given, NOW)

    def ask(place: Place) -> Any:
        rows = place.sql(query.text, query.params)
        # Shares are floats: their last digits depend on the order in which they are added up.
        return [
            {
                name: f"{value:.9g}" if isinstance(value, float) else value
                for name, value in row.items()
                if not APPROXIMATE.fullmatch(name)
            }
            for row in rows
        ]

    return ask


@pytest.mark.parametrize("question", questions().values(), ids=lambda one: one.name)
def test_questions(places: Places, question: Question) -> None:
    same(places, rows_of(question, None))
    if "by" in question.parameters and not question.parameters["by"].choices:
        for by in ("customer", "model,day"):
            same(places, rows_of(question, by))


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/v1/dimensions/customer/values", PERIOD),
        ("/v1/whatif", {**PERIOD, "discount": "openai=10", "by": "model"}),
        ("/v1/whatif", {**PERIOD, "model": "gpt-4o-mini=gpt-4o", "by": "customer"}),
        ("/v1/statements", {"period": "2023-11", "for": "customer=twice", "format": "csv"}),
        ("/v1/statements", {"period": "2023-11", "format": "csv"}),
    ],
    ids=str,
)
def test_endpoints(places: Places, path: str, params: Mapping[str, str]) -> None:
    # A statement says when it was made.
    same(places, lambda place: re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "now", json.dumps(place.get(path, **params))))


@pytest.mark.parametrize("more", [{"granularity": "hourly"}, {"version": "1.4"}], ids=str)
def test_focus(places: Places, more: Mapping[str, str]) -> None:
    """But for runs' names, and what is made of them."""

    def ask(place: Place) -> list[str]:
        rows = csv.DictReader(io.StringIO(place.get("/v1/focus", format="csv", **MONTH, **more)))
        return sorted(
            json.dumps(
                {
                    name: "" if name == "x_Correction" or "Id" in name or "Description" in name else value
                    for name, value in row.items()
                }
            )
            for row in rows
        )

    assert len(same(places, ask)) > 100


ESCAPES: Final = (Path(__file__).parent / "sql_escapes.txt").read_text(encoding="utf-8").splitlines()


def test_escapes_are_refused_everywhere(places: Places) -> None:
    """A sample of each class: tests/test_escapes_everywhere.py has all of them, embedded. The check is the same, the engine's version isn't."""

    def ask(place: Place) -> list[tuple[str, int, str]]:
        told = []
        for query in ESCAPES[::9]:
            answer = place.http.post("/v1/sql", json={"query": query}, headers={"authorization": f"Bearer {place.key}"})
            told.append((query, answer.status_code, answer.json().get("error", {}).get("code")))
        return told

    assert {status for _, status, _ in same(places, ask)} == {400}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT DISTINCT tenant FROM charges",
        "SELECT DISTINCT tenant FROM outcomes",
        "SELECT DISTINCT tenant FROM (SELECT * FROM charges WHERE tenant = 'other' OR 1)",
        "SELECT DISTINCT c.tenant FROM charges AS c INNER JOIN charges AS o USING (provider)",
        "SELECT DISTINCT tenant FROM charges WHERE trace_id IN (SELECT trace_id FROM charges)",
        "WITH o AS (SELECT tenant FROM charges UNION ALL SELECT tenant FROM outcomes) SELECT DISTINCT tenant FROM o",
    ],
)
def test_a_tenant_sees_its_own_rows_everywhere(places: Places, query: str) -> None:
    for place in places.values():
        assert {row["tenant"] for row in place.sql(query)} == {TENANT}
        answer = place.http.post("/", params={"default_format": "TSV"}, content=query, headers={"x-clickhouse-key": place.key})
        assert answer.text.split() == [TENANT]


def test_shards_sum_up_what_they_have(places: Places, shards: ClickHouseCluster) -> None:
    """Only sums come from other shards, and the projection answers there."""
    for table in ("charges", "ledger"):
        query = (
            f"SELECT customer, sum(cost_usd) FROM tallystick.{table} WHERE toDate(started_at) >= '2023-11-01' GROUP BY customer"
        )
        plan = shards.ask(f"EXPLAIN distributed = 1 {query} FORMAT TSVRaw")
        remote = plan[plan.index("ReadFromRemote") :]
        assert "Aggregating" in remote
        assert "ReadFromMergeTree (spend" in remote
