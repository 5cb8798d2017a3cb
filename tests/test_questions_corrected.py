"""Named questions of a ledger that was repriced, voided and undone by what makes corrections."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from asked import asked
from corrected import SINCE_NS, UNTIL_NS, Call, Rates, book, corrections_of, enter

from tallystick.attribution.priced_calls import Which
from tallystick.attribution.reprice import reprice
from tallystick.attribution.voids import void_call
from tallystick.ingest.store import Store

TENANT = "questions-corrected"
OLD: Rates = {"lab-x": (Decimal(1), Decimal(10)), "lab-y": None}
NEW: Rates = {"lab-x": (Decimal(2), Decimal(20)), "lab-y": (Decimal(5), Decimal(0))}
CALLS = [Call(number, f"lab-{'xy'[number % 2]}", 1000, 100, None) for number in range(80)]
"""0.002 USD, then 0.004, of lab-x; nothing known, then 0.005, of lab-y."""

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ask(chdb_store: Store) -> Ask:
    """After a reprice, the void of a call of each model, and the undoing of that of lab-y."""
    client = chdb_store.client()
    enter(client, TENANT, [Call(c.number, c.model, c.input_tokens, c.output_tokens, c.price(OLD)) for c in CALLS])
    corrections = corrections_of(client)
    reprice(corrections, book(NEW), Which(SINCE_NS, UNTIL_NS, tenant=TENANT), reason="test", author="", dry_run=False)
    voids = [void_call(corrections, c.trace_id, c.span_id, tenant=TENANT, reason="test", author="").made for c in CALLS[40:42]]
    assert voids[1] is not None
    corrections.undo(voids[1].id, reason="test", author="")

    def asking(name: str, **given: Any) -> list[dict[str, Any]]:
        return asked(chdb_store, TENANT, name, **{"since": "2026-09-01", "until": "2026-12-01", **given})

    return asking


def test_latency_is_of_the_calls_that_stand(ask: Ask) -> None:
    rows = {row["measure"]: row for row in ask("latency", by="total")}
    assert {name: (rows[name]["n"], rows[name]["mean_ms"]) for name in ("ttft", "end_to_end")} == {
        "ttft": (79, 100),
        "end_to_end": (79, 1000),
    }


def test_versions_are_compared_at_what_calls_cost_now(ask: Ask) -> None:
    rows = {row["measure"]: row for row in ask("ab", dimension="model", a="lab-x", b="lab-y")}
    cost, whole = rows["cost_usd"], rows["end_to_end_ms"]
    assert (cost["a_n"], cost["b_n"]) == (39, 40)
    assert [cost[name] for name in ("a", "b", "low", "high")] == pytest.approx([0.004, 0.005, 0.001, 0.001], abs=1e-9)
    assert cost["verdict"] == "b is higher"
    assert (whole["a"], whole["b"], rows["ttft_ms"]["a"], rows["error_rate"]["b"]) == (1000, 1000, 100, 0)


def test_models_and_what_is_unpriced(ask: Ask) -> None:
    assert {row["model"]: (row["calls"], row["cost_usd"], row["calls_priced"]) for row in ask("models", by="model")} == {
        "lab-x": (39, Decimal("0.156"), 1),
        "lab-y": (40, Decimal("0.2"), 1),
    }
    assert ask("unpriced") == []


def test_runs(ask: Ask) -> None:
    rows = ask("sessions", of="run", limit="1000")
    assert (len(rows), {row["seconds"] for row in rows}, {row["calls"] for row in rows}) == (79, {1}, {1})


def test_what_was_known(ask: Ask) -> None:
    latest = ask("as-known")[0]
    assert (latest["calls"], latest["cost_usd"], latest["now_usd"]) == (79, Decimal("0.356"), Decimal("0.356"))
    before = ask("as-known", on="2026-01-01")[0]
    assert before["now_usd"] == sum(before[name] for name in ("late_usd", "void_usd", "reprice_usd"))


def test_a_repriced_day_against_one_that_is_alike(ask: Ask) -> None:
    """Both days were repriced: nothing changed but the call that is gone."""
    total = ask("what-changed", since="2026-10-02", until="2026-10-03")[0]
    calls = [[c for c in CALLS if c.started_at.day == day and c.number != 40] for day in (1, 2)]
    cost = [sum(c.price(NEW) or 0 for c in of_day) for of_day in calls]
    assert [total["calls_before"], total["calls"]] == [len(of_day) for of_day in calls] == [24, 23]
    assert [total["before_usd"], total["cost_usd"]] == cost
    assert total["volume_usd"] == Decimal("-0.0045")
    assert (total["mix_usd"], total["price_usd"], total["unpriced"]) == (Decimal("0.0005"), 0, 0)
