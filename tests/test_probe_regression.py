"""Regressions of probes: what is found among runs, what can't be judged, and what is said on a real server."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pushed_runs import START_NS, pushed

from tallystick.alerts.config import load_config
from tallystick.alerts.config_rules import ProbeFigure, ProbeRegressionRule
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Kind
from tallystick.alerts.rules import Finding, look
from tallystick.alerts.rules.probe_regression import Measured, Series, judge
from tallystick.alerts.tick import Evaluator
from tallystick.ingest.store import EmbeddedStore
from tallystick.server.probe_store import keep, read_push

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def rule(figure: str = "ttft", percent: int = 20, runs: int = 3, engine: str | None = None) -> ProbeRegressionRule:
    return ProbeRegressionRule(
        name="slower", notify=("team",), figure=ProbeFigure(figure), worse_by_percent=Decimal(percent), runs=runs, engine=engine
    )


def series(now: float, *before: float, spread: float = 0.02) -> Series:
    of = Measured(now, now * (1 - spread), now * (1 + spread))
    return Series(
        "llama", "f32", "run", NOW, {"poisson 4/s": of}, tuple({"poisson 4/s": Measured(one, None, None)} for one in before)
    )


@pytest.mark.parametrize(
    ("now", "before", "found"),
    [
        pytest.param(130, (100, 101, 99), True, id="a third worse"),
        pytest.param(119, (100, 101, 99), False, id="within what is allowed"),
        pytest.param(70, (100, 101, 99), False, id="better"),
        pytest.param(130, (100, 500, 99), True, id="one that was slow before doesn't count"),
        pytest.param(130, (100, 101), False, id="too few before"),
        pytest.param(130, (0, 0, 0), False, id="nothing can be a share of nothing"),
    ],
)
def test_of_latency(now: float, before: Sequence[float], found: bool) -> None:
    assert (judge(rule(), series(now, *before)) is not None) is found


def test_of_throughput_less_is_worse() -> None:
    assert judge(rule("throughput"), series(70, 100, 101, 99)) is not None
    assert judge(rule("throughput"), series(130, 100, 101, 99)) is None


def test_an_interval_that_reaches_what_is_usual_is_no_finding() -> None:
    assert judge(rule(), series(130, 100, 101, 99, spread=0.4)) is None
    assert judge(rule("throughput"), series(70, 100, 101, 99, spread=0.6)) is None


@given(st.floats(1e-3, 1e6), st.floats(0.5, 2), st.lists(st.floats(0.9, 1.1), min_size=3, max_size=3))
def test_it_goes_by_ratios(scale: float, worse: float, before: list[float]) -> None:
    """What is found doesn't depend on the unit; and is more than 20 % above the median."""
    found = judge(rule(), series(scale * worse, *(scale * one for one in before)))
    assert (found is not None) == (judge(rule(), series(worse, *before)) is not None) or abs(
        worse / sorted(before)[1] - 1.2
    ) < 1e-6
    if found is not None:
        assert worse > sorted(before)[1] * 1.199


def test_the_worst_load_is_named() -> None:
    loads = {
        "poisson 1/s": Measured(125, 120, 130),
        "poisson 4/s": Measured(300, 290, 310),
        "poisson 9/s": Measured(900, 890, 910),
    }
    before = {"poisson 1/s": Measured(100, None, None), "poisson 4/s": Measured(100, None, None)}
    found = judge(rule(), Series("llama", "f32", "run-7", NOW, loads, (before,) * 3))
    assert found is not None
    assert (found.value, found.mark, found.since, found.observed, found.usual) == (
        "llama f32",
        "ttft:worse",
        NOW,
        Decimal(300),
        Decimal(100),
    )
    assert found.reason == (
        "TTFT p50 of f32 at poisson 4/s is 300 ms (290 to 310), where the median of the 3 runs before is 100: 200 % worse. "
        "The run is run-7 of 2026-11-21 12:00 UTC."
    )


@pytest.fixture
def store(chdb_store: EmbeddedStore) -> EmbeddedStore:
    for table in ("probe_runs", "probe_results", "probe_requests"):
        chdb_store.client().command(f"TRUNCATE TABLE {table}")
    return chdb_store


def ask(store: EmbeddedStore) -> Any:
    def asked(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        with store.reader(None, {}) as reader:
            return list(reader.query(sql, parameters=dict(params)).result_rows)

    return asked


def enter(store: EmbeddedStore, *ttfts: float, **more: Any) -> None:
    for ttft in ttfts:
        body = pushed(len(rows(store)), ttft_ms=ttft, **more)
        assert keep(store.client(), read_push(json.dumps(body).encode()), NOW)


def rows(store: EmbeddedStore) -> Sequence[Any]:
    return list(store.client().query("SELECT id FROM probe_runs FINAL").result_rows)


def found(store: EmbeddedStore, watch: ProbeRegressionRule) -> tuple[list[Finding], list[str]]:
    notes: list[str] = []
    return look(ask(store), watch, NOW, notes.append), notes


def test_among_runs_that_were_pushed(store: EmbeddedStore) -> None:
    enter(store, 100, 104, 98)
    assert found(store, rule()) == (
        [],
        ["llama f32: 2 of the 3 comparable runs that it is to be held against: not judged yet"],
    )
    enter(store, 101)
    assert found(store, rule()) == ([], [])
    enter(store, 140)
    (one,), _ = found(store, rule())
    assert (one.value, one.observed, one.usual) == ("llama f32", Decimal(140), Decimal(101))
    assert one.since == datetime.fromtimestamp(START_NS / 1e9 + 4 * 3600, UTC)
    assert found(store, rule("tpot")) == ([], [])
    enter(store, 102)
    assert found(store, rule()) == ([], [])


def test_what_does_not_count(store: EmbeddedStore) -> None:
    enter(store, 100, 100, 100, 100)
    enter(store, 900, state="invalid")
    assert found(store, rule()) == ([], [])
    enter(store, 900, state="failed")
    assert found(store, rule()) == ([], [])
    enter(store, 900, valid=False)
    assert found(store, rule())[0] == []
    assert "has no TTFT p50 at a load" in found(store, rule())[1][0]


def test_what_asks_something_else_begins_anew(store: EmbeddedStore) -> None:
    enter(store, 100, 100, 100, 100)
    enter(store, 900, input_tokens=4000)
    assert found(store, rule())[0] == []
    assert "0 of the 3 comparable runs" in found(store, rule())[1][0]


def test_each_engine_by_itself(store: EmbeddedStore) -> None:
    enter(store, 100, 100, 100, 200, entry="f32")
    enter(store, 100, 100, 100, 300, entry="q4")
    assert [one.value for one in found(store, rule())[0]] == ["llama f32", "llama q4"]
    assert [one.value for one in found(store, rule(engine="q4"))[0]] == ["llama q4"]
    assert len(found(store, rule(engine="llamacpp"))[0]) == 2
    assert found(store, rule(engine="vllm")) == ([], [])


def test_a_run_pushed_again_is_judged_by_what_is_known_now(store: EmbeddedStore) -> None:
    enter(store, 100, 100, 100)
    enter(store, 900)
    assert len(found(store, rule())[0]) == 1
    keep(store.client(), read_push(json.dumps(pushed(3, ttft_ms=100)).encode()), NOW.replace(hour=13))
    assert found(store, rule()) == ([], [])


def test_throughput_is_the_highest_of_a_run(store: EmbeddedStore) -> None:
    enter(store, 100, 100, 100, tokens_per_s=[100, 400, 390])
    enter(store, 100, tokens_per_s=[400, 300, 100])
    assert found(store, rule("throughput")) == ([], [])
    enter(store, 100, tokens_per_s=[100, 300, 310])
    (one,), _ = found(store, rule("throughput"))
    assert (one.observed, one.usual) == (Decimal(310), Decimal(400))


RULES = """
channels: {team: {type: stdout}}
rules:
  - {name: slower, type: probe_regression, figure: ttft, worse_by_percent: 20, runs: 2, notify: [team]}
"""


def test_it_is_said_once_and_once_when_it_is_over(store: EmbeddedStore, tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'alerts.db'}") as ledger:
        watching = Evaluator(ledger, ask(store), load_config(RULES, {}), holder="one", author="test")

        def said(hour: int) -> list[tuple[Kind, str]]:
            """After two looks in the hour."""
            for minute in range(2):
                watching.tick(NOW + timedelta(hours=hour, minutes=minute))
            return [(one.message.kind, one.value) for one in reversed(ledger.journal.entries(100)) if one.message]

        enter(store, 100, 100, 101)
        assert said(0) == []
        enter(store, 150)
        assert said(1) == [(Kind.RULE, "llama f32")]
        enter(store, 160)
        assert said(2) == [(Kind.RULE, "llama f32")]
        enter(store, 101)
        assert said(3) == [(Kind.RULE, "llama f32"), (Kind.RESOLVED, "llama f32")]
