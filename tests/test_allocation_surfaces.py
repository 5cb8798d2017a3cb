"""Allocations on the running server and the command line: entered once, and the ledger's total grows by what was spread."""

import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from otlp import request, span
from server import CLEAN, COMMAND, Server

OCTOBER = 1_790_812_800  # 2026-10-01
RULES = """
prices: {}
allocations:
  - {name: overhead, kind: overhead, percent: 20, over: [customer], set: {feature: overhead}, reason: hidden cost}
  - {name: fee, kind: fixed, amount: 10, over: team, by: calls, scope: {customer: acme}}
  - {name: gpu, kind: idle, usd_per_hour: 1, charged_to: {provider: openai}, over: customer, by: tokens}
  - {name: audit, kind: amount, over: customer, by: equal}
  - {name: split, kind: amount, over: customer, by: shares, shares: {acme: 2, globex: 1}}
"""


def call(at: int, name: str, **who: str) -> Any:
    return span(name, start_ns=(OCTOBER + at) * 10**9, attributes={f"tallystick.{key}": value for key, value in who.items()})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("allocating")
    (folder / "tallystick.yaml").write_text(RULES)
    with Server(folder / "data", config=folder / "tallystick.yaml") as running:
        acme = [call(n * 86_400, f"a{n}", customer="acme", team="core") for n in range(3)]
        running.post_all([request(*acme, call(5, "g", customer="globex", team="web"))])
        yield running


def total(server: Server, where: str = "1") -> Decimal:
    (row,) = server.sql(f"SELECT sum(cost_usd) AS cost FROM charges WHERE {where} AND toYYYYMM(started_at) = 202610")
    return Decimal(row["cost"] or 0)


def post(server: Server, rule: str, **question: Any) -> Any:
    answer = server.http.post(f"/v1/allocations/{rule}", json={"period": "2026-10"} | question)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])


def test_the_ledgers_total_grows_by_what_was_spread(server: Server) -> None:
    before = total(server)
    shown = post(server, "overhead", dry_run=True)
    assert total(server) == before == Decimal("0.00084")
    made = post(server, "overhead")
    assert made["correction"]["entries"] == made["lines"] == 4
    assert {one["who"]["customer"]: one["cost_usd"] for one in made["shares"]} == {
        "acme": "0.000126000000",
        "globex": "0.000042000000",
    }
    assert total(server) - before == Decimal(made["amount_usd"]) == Decimal(shown["amount_usd"]) == before / 5
    assert total(server, "entry = 'allocation' AND feature = 'overhead' AND reason = 'hidden cost'") == before / 5
    (row,) = server.sql("SELECT count() AS n, sum(calls) AS calls FROM charges WHERE entry = 'allocation'")
    assert (row["n"], row["calls"]) == (4, 0)


def test_a_period_is_allocated_once(server: Server) -> None:
    before = total(server)
    first = post(server, "audit", amount="9", reason="audit of October")
    status, error = post(server, "audit", amount="12")
    assert (status, error["code"]) == (409, "already_made")
    assert first["correction"]["id"] in error["hint"]
    again = post(server, "audit", amount="12", again=True)
    assert again["correction"]["reason"] == "amount audit 2026-10"
    assert total(server) - before == 12
    assert post(server, "audit", amount="3", period="2026-11")[0] == 400, "that month isn't over"
    runs = server.http.get("/v1/allocations").json()["runs"]
    assert [(run["key"], bool(run["undone_by"])) for run in runs if run["key"].startswith("audit")] == [
        ("audit 2026-10", False), ("audit 2026-10", True),
    ]  # fmt: skip


def test_earlier_allocations_are_no_base(server: Server) -> None:
    post(server, "fee")
    assert Decimal(post(server, "overhead", again=True)["amount_usd"]) == Decimal("0.00084") / 5


def test_idle_time_is_what_calls_were_not_charged(server: Server) -> None:
    made = post(server, "gpu", dry_run=True)
    assert Decimal(made["amount_usd"]) == 744 - Decimal("0.00084")
    assert made["how"].startswith("1 × 744 h × 1 USD = 744")


@pytest.mark.parametrize(
    ("rule", "question", "told"),
    [
        ("overhed", {}, (404, "no_such_rule", "did you mean overhead?")),
        ("fee", {"period": "2026-W42"}, (400, "cant_allocate", "write a month: 2026-10")),
        ("fee", {"period": "october"}, (400, "bad_request", "Nothing was entered.")),
        (
            "fee",
            {"period": "2026-09"},
            (400, "cant_allocate", "widen `scope` of the rule, or take `by: calls`, `equal` or `shares`"),
        ),
        ("audit", {}, (400, "cant_allocate", "give it with --amount")),
    ],
)
def test_what_cant_be_allocated_is_told(server: Server, rule: str, question: dict[str, Any], told: tuple[int, str, str]) -> None:
    before = total(server)
    status, error = post(server, rule, **question)
    assert (status, error["code"], error["hint"]) == told
    assert total(server) == before


def test_only_operators_allocate(server: Server) -> None:
    for method, path in (("GET", "/v1/allocations"), ("POST", "/v1/allocations/fee")):
        headers = {"authorization": f"Bearer {server.key('acme')}"}
        assert server.http.request(method, path, headers=headers, json={"period": "2026-10"}).status_code == 403


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "allocate", *args], capture_output=True, text=True, env=CLEAN | env, check=False)


def test_on_the_command_line(server: Server) -> None:
    url = {"TALLYSTICK_URL": server.url}
    done = run("split", "--period", "2026-10", "--amount", "90", "--reason", "contract", "--json", **url)
    assert [(row["customer"], row["cost_usd"]) for row in json.loads(done.stdout)] == [
        ("acme", "60.000000000000"),
        ("globex", "30.000000000000"),
    ]
    shown = run("gpu", "--period", "2026-10", "--dry-run", **url)
    assert "total of 2" in shown.stdout
    assert "nothing was entered: --dry-run" in shown.stderr
    rows = {row["rule"]: row for row in json.loads(run("--list", "--json", **url).stdout)}
    assert (rows["split"]["last_period"], rows["split"]["cost_usd"], rows["gpu"]["last_period"]) == (
        "2026-10",
        "90.000000000000",
        None,
    )
    assert run("--period", "2026-10", **url).returncode == 2
    assert run("split", "--period", "2026-10", "--amount", "much", **url).returncode == 2
    twice = run("split", "--period", "2026-10", "--amount", "90", **url)
    assert (twice.returncode, "was made already" in twice.stderr) == (1, True)


def test_without_a_server(tmp_path: Path) -> None:
    config = tmp_path / "rules.yaml"
    config.write_text(RULES)
    with Server(tmp_path / "data") as alone:
        alone.post(request(call(0, "alone", customer="acme", team="core")))
        alone.stop()
    at = ("--data", str(tmp_path / "data"), "--config", str(config))
    done = run("fee", "--period", "2026-10", "--csv", *at)
    assert done.stdout.splitlines() == ["tenant,team,cost_usd,share", "default,core,10.000000000000,1.0"], done.stderr
    assert json.loads(run("--list", "--json", *at).stdout)[1]["last_period"] == "2026-10"
    config.write_text("allocations:\n  - {name: fee, kind: fixd, over: team}\n")
    wrong = run("fee", "--period", "2026-10", *at)
    assert (wrong.returncode, "rules.yaml:2: allocations[0].kind" in wrong.stderr) == (1, True)
