"""One total, whoever is asked: HTTP, SQL, command line, FOCUS files and the sum of rows, to the last decimal.

The ledger is filled by the real pipeline with a trace of real traffic, some of it twice, with calls that a better span tells of later,
and priced three times.
"""

import csv
import json
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from otlp import request, span
from server import CLEAN, COMMAND, Server

from tallystick.client import Client
from tallystick.traffic import shipped

OPENINFERENCE = "openinference.instrumentation.openai"
PRICES = (
    "prices: {discounts: [{provider: openai, percent: 3}]}",
    "prices: {models: [{provider: openai, model: 'gpt-*', per_million_tokens: {input: 0.3333, cache_read: 0.0307, output: 1.77}}]}",
    "prices: {discounts: [{provider: anthropic, percent: 17}, {provider: openai, percent: 7.5}]}",
)
"""As they are while calls arrive, then twice as they turned out to have been."""


def command(server: Server, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, *arguments, "--json"], check=False, capture_output=True, text=True, env={**CLEAN, "TALLYSTICK_URL": server.url}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_float=Decimal)  # type: ignore[no-any-return]


def enter(server: Server) -> None:
    """Some 40,000 calls, and 40 that are told twice, the second time better; a fifth of it is sent again."""
    began = time.time_ns() - 3 * 86_400 * 10**9
    poor = [
        span(f"twice-{n}", f"outer-{n}", start_ns=began, attributes={"gen_ai.response.id": f"chatcmpl-{n}"}) for n in range(40)
    ]
    better = [
        span(f"twice-{n}", f"inner-{n}", parent=f"outer-{n}", start_ns=began + 10**6, duration_ns=998_000_000,
             attributes={"gen_ai.response.id": f"chatcmpl-{n}"})
        for n in range(40)
    ]  # fmt: skip
    (code,) = (file for file in shipped() if "code" in file.name)
    command(server, "replay", "--seed", "6")
    command(server, "replay", "--seed", "6", "--shift-to-now", str(code))
    for _ in range(2):
        server.post_all([request(*poor, scope=OPENINFERENCE)])
        server.post_all([request(*better)])


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[Decimal], list[str]]]:
    """A server after two repricings, the totals before and between them, and the instants at which these were right."""
    home = tmp_path_factory.mktemp("one")
    totals, instants = [], []
    for number, prices in enumerate(PRICES):
        config = home / f"{number}.yaml"
        config.write_text(prices, encoding="utf-8")
        with Server(home / "data", config=config) as server:
            if number == 0:
                enter(server)
            else:
                command(server, "reprice", "--since", "30d", "--reason", f"price list {number}")
            if number < len(PRICES) - 1:
                totals.append(by_sql(server))
                time.sleep(0.01)
                instants.append(server.sql("SELECT now64(3) AS now")[0]["now"])
                time.sleep(0.01)
                continue
            yield server, totals, instants


def by_sql(server: Server) -> Decimal:
    total = server.sql("SELECT sum(cost_usd) AS cost FROM charges")[0]["cost"]
    assert isinstance(total, Decimal)
    return total


Ledger = tuple[Server, list[Decimal], list[str]]


def test_it_was_corrected_in_all_ways(ledger: Ledger) -> None:
    server, totals, _ = ledger
    entries = {row["entry"]: row["n"] for row in server.sql("SELECT entry, count() AS n FROM charges GROUP BY entry")}
    assert entries["void"] == 40
    assert entries["reprice"] > 1000
    assert server.sql("SELECT sum(calls) AS calls FROM charges")[0]["calls"] == 40_216 + 40
    assert len({*totals, by_sql(server)}) == 3


def test_rows(ledger: Ledger) -> None:
    server, _, _ = ledger
    with Client(server.url) as client:
        costs = [row.cost_usd for row in client.charges(since="30d")]
    assert sum((cost for cost in costs if cost is not None), Decimal(0)) == by_sql(server)


def test_http(ledger: Ledger) -> None:
    server, _, _ = ledger
    answer = server.http.get("/v1/spend", params={"by": "customer,feature", "since": "30d"}).json()
    assert Decimal(answer["total"]["cost_usd"]) == by_sql(server)


@pytest.mark.parametrize("by", ["total", "customer", "customer,feature,agent", "model", "day", "entry", "user"])
def test_command_line(ledger: Ledger, by: str) -> None:
    server, _, _ = ledger
    rows = command(server, "costs", "--by", by, "--since", "30d")
    asked = command(server, "ask", "spend", "--param", f"by={by}", "--param", "since=30d", "--param", "limit=1000000")
    for told in (rows, asked):
        assert sum((Decimal(row["cost_usd"]) for row in told if row["cost_usd"] is not None), Decimal(0)) == by_sql(server)


def test_as_it_was_known(ledger: Ledger) -> None:
    server, totals, instants = ledger
    for total, instant in zip(totals, instants, strict=True):
        (row,) = command(server, "costs", "--by", "total", "--since", "30d", "--as-of", instant)
        assert Decimal(row["cost_usd"]) == total


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("granularity", ["daily", "hourly"])
def test_focus(ledger: Ledger, tmp_path: Path, version: str, granularity: str) -> None:
    server, _, _ = ledger
    asked = ("focus", "export", "--since", "30d", "--version", version, "--granularity", granularity)
    command(server, *asked, "--format", "csv", "-o", str(tmp_path / "csv"))
    command(server, *asked, "--format", "parquet", "-o", str(tmp_path / "parquet"))
    cells = [
        Decimal(row["BilledCost"])
        for file in (tmp_path / "csv").glob("*.csv")
        for row in csv.DictReader(file.open(encoding="utf-8", newline=""))
    ]
    values = [
        value.as_py() for file in (tmp_path / "parquet").glob("*.parquet") for value in parquet.read_table(file)["BilledCost"]
    ]
    assert len(cells) == len(values) > 100
    assert sum(cells) == sum(values) == by_sql(server)
