"""The price of a run: which stage it is taken at, what of it can't be known, and its way into the ledger."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_runs import HEALTH, SECOND, info, ladder, record, write

from tallystick.cli import cli
from tallystick.probes.config import Cost, Target
from tallystick.probes.figures.summary import summarise
from tallystick.probes.loading import LoadedRun, load_run
from tallystick.probes.money.measured_price import MeasuredPrice, NoPrice
from tallystick.probes.money.run_price import at_target, capacity_of, price_of
from tallystick.probes.records import LoadPoint, Outcome, Stage, Usage
from tallystick.probing.price_entry import entry_of, used_as_served
from tallystick.server.measured_prices import PriceEntry

COST = Cost.model_validate({"usd_per_hour": "2"})
LOOSE, TIGHT, IMPOSSIBLE = Target(ttft_ms=10_000), Target(ttft_ms=150), Target(ttft_ms=0.001)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at 2, 4 and 8 a second, of an engine that is slower at each."""
    found = tmp_path_factory.mktemp("runs")
    write(found, info("F32"), *ladder())
    return found


@pytest.fixture(scope="module")
def run(data: Path) -> LoadedRun:
    return load_run(next((data / "probes").iterdir()))


def priced(run: LoadedRun, target: Target | None, **options: Any) -> MeasuredPrice:
    return price_of(run.stages, [summarise(stage, target) for stage in run.stages], COST, target, **options)


def test_the_price_is_at_the_highest_rate_within_the_target(run: LoadedRun) -> None:
    loose, tight = priced(run, LOOSE), priced(run, TIGHT)
    assert (loose.capacity.at, tight.capacity.at) == ("poisson 8/s", "poisson 4/s")
    assert tight.capacity.target == "TTFT 150 ms for 0.95 of requests"
    assert tight.best is not None
    assert tight.best.at == "poisson 8/s"
    assert tight.all_tokens_best == loose.all_tokens
    assert tight.all_tokens > loose.all_tokens
    # 100 tokens in and 20 out a request
    assert tight.capacity.output_tokens_per_s == pytest.approx(20 * tight.capacity.requests_per_s, rel=0.05)
    by_hand = Decimal(2_000_000) / (Decimal(str(tight.capacity.tokens_per_s)) * 3600)
    assert tight.all_tokens == pytest.approx(by_hand)


def test_without_a_target_it_is_said(run: LoadedRun) -> None:
    found = priced(run, None)
    assert found.capacity.at == "poisson 8/s"
    assert any("no latency target" in note for note in found.notes)


def test_no_price_says_why(run: LoadedRun) -> None:
    with pytest.raises(NoPrice, match=r"no rate kept TTFT 0\.001 ms .*at best 0\.0%"):
        priced(run, IMPOSSIBLE)
    unsure = [replace(stage, health=replace(HEALTH, cpu_share=0.99)) for stage in run.stages]
    with pytest.raises(NoPrice, match="no stage is valid"):
        price_of(unsure, [summarise(stage, LOOSE) for stage in unsure], COST, LOOSE)
    silent = [
        replace(stage, records=[replace(one, usage=None, input_tokens=None) for one in stage.records]) for stage in run.stages
    ]
    with pytest.raises(NoPrice, match="no valid stage has token counts"):
        price_of(silent, [summarise(stage, LOOSE) for stage in silent], COST, LOOSE)


def test_a_stage_that_is_not_to_be_trusted_is_no_capacity(run: LoadedRun) -> None:
    *fine, last = run.stages
    stages = [*fine, replace(last, health=replace(HEALTH, cpu_share=0.99))]
    found = price_of(stages, [summarise(stage, None) for stage in stages], COST, None)
    assert found.capacity.at == "poisson 4/s"
    assert found.best == found.capacity


def test_closed_loops_have_no_rate_and_a_price(run: LoadedRun) -> None:
    closed = [replace(stage, load=LoadPoint("closed", concurrency=2**stage.number)) for stage in run.stages]
    assert price_of(closed, [summarise(stage, TIGHT) for stage in closed], COST, TIGHT).capacity.at == "closed 4"


def test_a_rate_above_one_that_missed_the_target_counts_for_nothing() -> None:
    fast, slow, chance = ladder(rates=(2, 4, 8))
    swapped = [fast, replace(slow, load=chance.load), replace(chance, load=slow.load)]
    assert priced_at(swapped) == "poisson 2/s"


def priced_at(stages: list[Stage]) -> str:
    found = at_target([summarise(stage, TIGHT) for stage in stages], TIGHT)
    assert found is not None
    return found.at


def with_cached(told: bool) -> Stage:
    records = [
        replace(one, usage=Usage(100, 40 if told else None, 20, None))
        for one in (record(at, at * SECOND // 4, ttft_ms=20) for at in range(100))
    ]
    return Stage(1, LoadPoint("constant", rate=4.0), 0, records[-1].ended_ns, records, [], HEALTH)


def test_what_came_from_a_cache_is_no_input() -> None:
    found = capacity_of(summarise(with_cached(told=True), None))
    assert found is not None
    assert found.cached_tokens_per_s == pytest.approx(160, rel=0.05)
    assert found.input_tokens_per_s == pytest.approx(240, rel=0.05)
    silent = capacity_of(summarise(with_cached(told=False), None))
    assert silent is not None
    assert silent.cached_tokens_per_s is None
    assert silent.input_tokens_per_s == pytest.approx(400, rel=0.05)


def test_failures_keep_no_target() -> None:
    (stage,) = ladder(rates=(4,))
    broken = replace(stage, records=[*stage.records[:90], *(replace(one, outcome=Outcome.REFUSED) for one in stage.records[90:])])
    assert at_target([summarise(stage, LOOSE)], LOOSE) is not None
    assert at_target([summarise(broken, LOOSE)], LOOSE) is None


def test_utilisation_is_what_the_ledgers_calls_came_to(run: LoadedRun) -> None:
    full = priced(run, LOOSE)
    an_hour = {"input": 3600 * full.capacity.input_tokens_per_s, "output": 3600 * full.capacity.output_tokens_per_s}
    tokens = {"input": round(an_hour["input"]), "cache_read": 0, "output": round(an_hour["output"])}
    quarter = used_as_served(full, tokens, 0, 4 * 3600 * SECOND, 1)  # type: ignore[arg-type]
    assert quarter.utilisation == pytest.approx(Decimal("0.25"), rel=Decimal("0.001"))
    assert quarter.all_tokens == pytest.approx(4 * full.all_tokens, rel=Decimal("0.001"))
    assert "ledger, 4 h" in quarter.definition
    with pytest.raises(NoPrice, match=r"4\.0 such engines"):
        used_as_served(full, tokens, 0, 900 * SECOND, 1)  # type: ignore[arg-type]
    with pytest.raises(NoPrice, match="no calls of this model"):
        used_as_served(full, {"input": 0, "cache_read": 0, "output": 0}, 0, SECOND, 1)


def test_an_entry_is_one_that_the_server_takes(run: LoadedRun) -> None:
    full = priced(run, LOOSE)
    entry = PriceEntry.model_validate(entry_of(full, run.info.id, "self", "m", run.info.started))
    assert (entry.input, entry.output) == (full.per_million["input"], full.per_million["output"])
    assert "2 USD/h over" in entry.definition


def probe(data: Path, *args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["probe", *args, "--data", str(data)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_the_command(data: Path) -> None:
    (row,) = json.loads(
        probe(data, "price", "last", "--usd-per-hour", "2", "--utilisation", "40%", "--ratio", "1:0.1:4", "--json").stdout
    )
    assert (row["model"], row["utilisation"], row["split"]["method"]) == ("generated", "0.4", "ratio")
    assert Decimal(row["usd_per_million"]["output"]) == pytest.approx(4 * Decimal(row["usd_per_million"]["input"]))
    assert Decimal(row["usd_per_million_all"]) == pytest.approx(Decimal("2.5") * Decimal(row["usd_per_million_all_full"]))
    table = probe(data, "price", "last", "--usd-per-hour", "2")
    assert "rent: 1 × 2 USD/h" in table.stdout
    assert "all tokens of this mix" in table.stdout


def test_break_even_from_a_trace(data: Path) -> None:
    args = (
        "breakeven",
        "--trace",
        "azure-code",
        "--engine",
        "last",
        "--against",
        "openai/gpt-5-mini,openai/gpt-9",
        "--usd-per-hour",
        "2",
    )
    (row,) = json.loads(probe(data, *args, "--json").stdout)
    priced_one, unpriced = row["against"]
    assert priced_one["usd"] is not None
    assert unpriced["usd"] is None
    assert "has no price" in unpriced["verdict"]
    shown = probe(data, *args)
    assert "What openai/gpt-5-mini hangs on" in shown.stdout
    assert "rule of thumb" in shown.stdout
    assert "isn't judged" in shown.output


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("price", "last"), 1, "isn't known"),
        (("price", "nothing"), 1, "nothing"),
        (("price", "last", "--usd-per-hour", "2", "--utilisation", "half"), 2, "neither a share"),
        (("price", "last", "--usd-per-hour", "2", "--utilisation", "1.2"), 1, "at most 1"),
        (("price", "last", "--usd-per-hour", "-1"), 2, "no amount"),
        (("price", "last", "--ratio", "0:1:1"), 2, "three numbers"),
        (("price", "last", "--from", "soon"), 2, "no date"),
        (("breakeven", "--engine", "last", "--against", "openai/gpt-5-mini"), 2, "whose calls"),
        (("breakeven", "--feature", "a", "--trace", "azure-code", "--engine", "last", "--against", "a"), 2, "whose calls"),
        (("breakeven", "--where", "a", "--engine", "last", "--against", "a"), 2, "DIMENSION=VALUE"),
        (("breakeven", "--trace", "no.csv", "--engine", "last", "--usd-per-hour", "2", "--against", "a"), 1, "no trace"),
        (
            ("breakeven", "--trace", "azure-code", "--engine", "last", "--usd-per-hour", "2", "--against", "gpt-9"),
            1,
            "nothing is left",
        ),
    ],
)
def test_what_a_command_refuses(data: Path, args: tuple[str, ...], code: int, said: str) -> None:
    assert said in probe(data, *args, code=code).output
