"""Measured prices in the ledger's database: calls are priced by them from their day on, below a file's and above the public list."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from made_runs import info, ladder, write
from otlp import request, span
from pydantic import ValidationError
from server import CLEAN, COMMAND, Server

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import MeasuredPrice, UserPrices, read_prices
from tallystick.client import Client, Refused
from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.keys import Role
from tallystick.ingest.store import EmbeddedStore
from tallystick.schema.models import Seen
from tallystick.server.measured_prices import FRESH_S, PresentBook, PriceEntry

NOW = datetime.now(UTC)
ENTRY: dict[str, Any] = {
    "provider": "self", "model": "qwen3-8b", "valid_from": "2026-01-01T00:00:00Z", "run": "20261121T163000-f32-3fa9",
    "input": "1.5", "cache_read": "0.25", "output": "6", "definition": "2 USD/h over 562 tokens/s at poisson 4/s",
}  # fmt: skip


def measured(**changed: Any) -> MeasuredPrice:
    return MeasuredPrice.entered(ENTRY | changed)


def usd(book: PriceBook, seen: Seen, at: datetime = NOW) -> Decimal | None:
    """Of a million input tokens."""
    row = next((row for row in reversed(book.rows([seen])) if row.valid_from <= at), None)
    return row.rates[0].scaleb(6) if row and row.price_ids else None


def seen(provider: str, model: str = "qwen3-8b") -> Seen:
    return Seen(provider, model, "", "")


def test_a_file_stands_above_it_and_the_public_list_below() -> None:
    of_list = measured(model="gpt-5-mini", provider="openai", input="0.001")
    assert usd(PriceBook(), seen("openai", "gpt-5-mini")) == Decimal("0.25")
    assert usd(PriceBook(UserPrices().with_measured([of_list])), seen("openai", "gpt-5-mini")) == Decimal("0.001")
    file = read_prices("prices: {models: [{model: gpt-5-mini, per_million_tokens: {input: 7}}]}")
    assert usd(PriceBook(file.with_measured([of_list])), seen("openai", "gpt-5-mini")) == 7


@pytest.mark.parametrize(
    ("provider", "model", "fits"),
    [
        ("self", "qwen3-8b", True), ("", "qwen3-8b", True), ("openai", "qwen3-8b", True), ("vllm", "qwen3-8b", True),
        ("openai", "self/Qwen3-8B", True), ("groq", "qwen3-8b", False), ("openai", "gpt-5-mini", False), ("vllm", "qwen3-80b", False),
    ],
)  # fmt: skip
def test_whose_calls_it_is_for(provider: str, model: str, fits: bool) -> None:
    found = PriceBook(UserPrices().with_measured([measured()])).rows([seen(provider, model)])
    ours = [row for row in found if row.source.startswith("probe@")]
    assert bool(ours) is fits
    for row in ours:
        assert row.price_ids == ("probe@20261121T163000-f32-3fa9,self,qwen3-8b,from=2026-01-01",)
        assert "562 tokens/s" in row.note


def test_a_files_price_of_a_provider_is_for_that_provider_alone() -> None:
    book = PriceBook(read_prices("prices: {models: [{provider: self, model: qwen3-8b, per_million_tokens: {input: 7}}]}"))
    assert usd(book, seen("self")) == 7
    assert usd(book, seen("vllm")) is None


def test_the_later_day_holds_and_of_one_day_the_later_entry() -> None:
    prices = [measured(), measured(input="2"), measured(valid_from="2026-06-01T00:00:00Z", input="3")]
    book = PriceBook(UserPrices().with_measured(prices))
    assert [usd(book, seen("self"), datetime(2026, month, 2, tzinfo=UTC)) for month in (1, 7)] == [2, 3]
    assert usd(book, seen("self"), datetime(2025, 12, 31, tzinfo=UTC)) is None


def test_books_without_it_are_what_they_were() -> None:
    file = read_prices("prices: {models: [{model: lab-a, per_million_tokens: {input: 2}}]}")
    with_it = PriceBook(file.with_measured([measured()]))
    assert PriceBook(file.with_measured([])).id == PriceBook(file).id
    assert with_it.id not in {PriceBook(file).id, PriceBook(file.with_measured([measured(input="2")])).id}
    (before,), (after,) = PriceBook(file).rows([seen("lab", "lab-a")]), with_it.rows([seen("lab", "lab-a")])
    assert before[1:] == after[1:]


def test_a_file_has_no_measured_prices() -> None:
    with pytest.raises(ValueError, match="measured"):
        read_prices("prices: {measured: [{model: a}]}")


@pytest.mark.parametrize(
    "wrong", [{"model": "a*"}, {"model": ""}, {"input": "-1"}, {"run": "a,b"}, {"input": "NaN"}, {"more": 1}]
)
def test_what_no_entry_is(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PriceEntry.model_validate(ENTRY | wrong)


@contextmanager
def without_its_table(store: EmbeddedStore) -> Iterator[None]:
    store.client().command("RENAME TABLE measured_prices TO elsewhere")
    yield
    store.client().command("RENAME TABLE elsewhere TO measured_prices")


def test_prices_of_other_processes_are_seen_within_a_minute(chdb_store: EmbeddedStore) -> None:
    now = [0.0]
    with without_its_table(chdb_store), pytest.raises(StoreUnavailable):
        PresentBook(chdb_store, UserPrices()).book()
    ours, theirs = (PresentBook(chdb_store, UserPrices(), lambda: now[0]) for _ in range(2))
    before = ours.book()
    assert ours.book() is before
    assert usd(before, seen("vllm")) is None
    made = theirs.enter(PriceEntry.model_validate(ENTRY), "ana", NOW)
    assert (made.entered_by, made.price_id) == ("ana", "probe@20261121T163000-f32-3fa9,self,qwen3-8b,from=2026-01-01")
    assert usd(theirs.book(), seen("vllm")) == Decimal("1.5")
    assert ours.book() is before
    now[0] += FRESH_S
    assert usd(ours.book(), seen("vllm")) == Decimal("1.5")
    assert ours.entered() == theirs.entered()
    present = ours.book()
    with without_its_table(chdb_store):
        now[0] += FRESH_S
        assert ours.book() is present
    chdb_store.client().command("TRUNCATE TABLE measured_prices")


CALL = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "qwen3-8b", "gen_ai.response.model": "qwen3-8b"}
COST = "SELECT sum(calls) AS n, sum(cost_usd) AS cost, anyIf(price_id, price_id != '') AS id FROM charges WHERE feature = '{}'"


def tally(*args: str, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, env=CLEAN, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("priced") / "data"
    config = data.parent / "tallystick.yaml"
    config.write_text(
        "allocations:\n  - {name: idle, kind: idle, usd_per_hour: 2, charged_to: {model: qwen3-8b}, over: feature, by: tokens, period: day}\n"
    )
    with Server(data, config=config) as running:
        yield running


def sent(server: Server, feature: str, count: int) -> None:
    spans = (span(f"{feature} {at}", attributes=CALL | {"tallystick.feature": feature}) for at in range(count))
    server.post_all([request(*spans)])


def test_calls_are_priced_from_the_entry_on_and_older_ones_keep_theirs(server: Server) -> None:
    sent(server, "before", 3)
    assert server.sql(COST.format("before")) == [{"n": 3, "cost": None, "id": ""}]
    with Client(server.url) as client:
        made = client.enter_price(ENTRY, who="ana")
        assert [one["run"] for one in client.measured_prices()] == [ENTRY["run"]]
    assert made["entered_by"] == "ana"
    sent(server, "after", 5)
    # The span's 1,000 input and 100 output tokens: (1000 × 1.5 + 100 × 6) / 1e6
    (found,) = server.sql(COST.format("after"))
    assert found == {"n": 5, "cost": Decimal("0.0105"), "id": made["price_id"]}
    assert server.sql(COST.format("before"))[0]["cost"] is None
    shown = json.loads(tally("prices", "show", made["price_id"], "--url", server.url, "--json"))[0]
    assert Decimal(shown["output_usd_per_million"]) == 6
    assert shown["source"] == "probe@20261121T163000-f32-3fa9"
    assert "562 tokens/s" in shown["note"]
    told = json.loads(tally("reprice", "--since", "1d", "--reason", "measured since", "--url", server.url, "--json"))[0]
    assert told["newly_priced"] == 3
    assert server.sql(COST.format("before"))[0]["cost"] == Decimal("0.0063")


def test_what_if_starts_from_it(server: Server) -> None:
    with Client(server.url) as client:
        found = client.what_if({"since": "1d", "by": "model", "tier": "", "where": ["feature=after"]})
    assert found["total"]["as_if_usd"] == found["total"]["cost_usd"] == "0.0105"


def test_a_price_is_shown_before_anything_was_charged_by_it(server: Server) -> None:
    with Client(server.url) as client:
        made = client.enter_price(ENTRY | {"model": "not-called", "valid_from": (NOW + timedelta(days=1)).isoformat()})
        assert made["price_id"] == ""
        made = client.enter_price(ENTRY | {"model": "not-called"})
    shown = json.loads(tally("prices", "show", made["price_id"], "--url", server.url, "--json"))[0]
    assert Decimal(shown["input_usd_per_million"]) == Decimal("1.5")


def test_idle_hours_are_shared_out(server: Server) -> None:
    day = NOW.date().isoformat()
    shares = json.loads(tally("allocate", "idle", "--period", day, "--dry-run", "--url", server.url, "--json"))
    (charged,) = server.sql("SELECT sum(cost_usd) AS usd FROM charges WHERE request_model = 'qwen3-8b' AND entry != 'allocation'")
    assert sum(Decimal(row["cost_usd"]) for row in shares) == 48 - charged["usd"]
    assert {row["feature"] for row in shares} == {"before", "after"}


def test_prices_are_the_operators(server: Server) -> None:
    for role in (Role.READER, Role.WRITER):
        with Client(server.url, server.key("acme", role=role)) as client, pytest.raises(Refused):
            client.enter_price(ENTRY)
    with Client(server.url, server.key("ops", operator=True)) as client:
        client.enter_price(ENTRY)
        assert ENTRY["run"] in {one["run"] for one in client.measured_prices()}
        with pytest.raises(Refused, match="model"):
            client.enter_price(ENTRY | {"model": "a b"})


def test_from_a_run_to_the_ledger_and_back(server: Server, tmp_path: Path) -> None:
    """probe price --enter, the ledger's own use of it, and break-even on its calls."""
    run = info("F32")
    assert run.engine is not None
    write(tmp_path, replace(run, engine=replace(run.engine, model="lab-own")), *ladder(rates=(2, 4), count=40))
    of_run = ("--usd-per-hour", "2", "--data", str(tmp_path), "--url", server.url, "--json")
    attributes = (
        CALL | dict.fromkeys(("gen_ai.request.model", "gen_ai.response.model"), "lab-own") | {"tallystick.feature": "own"}
    )
    server.post_all([request(*(span(f"own {at}", attributes=attributes) for at in range(10)))])
    (row,) = json.loads(tally("probe", "price", "last", "--from", "2026-01-01", "--enter", *of_run))
    assert row["entered"]["price_id"] == f"probe@{run.id},self,lab-own,from=2026-01-01"
    told = json.loads(
        tally("reprice", "--since", "1d", "--model", "lab-own", "--reason", "measured", "--url", server.url, "--json")
    )[0]
    per_million = {bucket: Decimal(usd) for bucket, usd in row["usd_per_million"].items()}
    by_hand = 10 * (1000 * per_million["input"] + 100 * per_million["output"]) / 1_000_000
    assert Decimal(told["cost_usd"]) == pytest.approx(by_hand, abs=Decimal("1e-11"))
    a_day_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    (used,) = json.loads(tally("probe", "price", "last", "--utilisation", "ledger", "--since", a_day_ago, *of_run))
    # The cost of a day's busy hours over that of the day
    assert Decimal(used["utilisation"]) == pytest.approx(by_hand / 48, rel=Decimal("0.01"))
    (found,) = json.loads(
        tally(
            "probe",
            "breakeven",
            "--feature",
            "own",
            "--since",
            "1d",
            "--engine",
            "last",
            "--against",
            "openai/gpt-5-mini",
            *of_run,
        )
    )
    assert found["demand"]["counted"] == 10
    assert Decimal(found["against"][0]["usd"]) == 10 * (1000 * Decimal("0.25") + 100 * Decimal(2)) / 1_000_000
    assert Decimal(found["demand"]["engine_hours"]) * 2 == pytest.approx(by_hand, rel=Decimal("0.01"))
