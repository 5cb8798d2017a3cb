"""What-if on the running server and the command line: the same answer everywhere, and nobody's but one's own."""

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from otlp import request, span
from server import CLEAN, COMMAND, Server

OPUS = {
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-opus-4-5",
    "gen_ai.response.model": "claude-opus-4-5",
}


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[str, str]:
    keys = {name: server.key(name) for name in ("if-acme", "if-globex")} | {"operator": server.key("if-ops", operator=True)}
    server.post_all([request(span("if-1"), span("if-2"), span("if-3", attributes=OPUS))], keys["if-acme"])
    server.post_all([request(*(span(f"if-g{n}") for n in range(5)))], keys["if-globex"])
    return keys


def get(server: Server, key: str, **params: Any) -> Any:
    answer = server.http.get("/v1/whatif", params=params, headers={"authorization": f"Bearer {key}"})
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])


def test_a_tenant_is_told_of_its_own_calls(server: Server, keys: dict[str, str]) -> None:
    found = get(server, keys["if-acme"], since="1d", tier="batch", by="provider")
    rows = {row["group"]["provider"]: row for row in found["rows"]}
    assert rows["openai"]["cost_usd"] == "0.00042"
    assert Decimal(rows["openai"]["as_if_usd"]) == Decimal("0.00021")
    assert (found["groups"], found["total"]["calls"]) == (2, 3)
    assert Decimal(found["total"]["difference_usd"]) == sum(Decimal(row["difference_usd"]) for row in rows.values())
    assert get(server, keys["operator"], since="1d", by="total", where="tenant=if-globex")["total"]["calls"] == 5


def test_as_is_is_the_ledgers_total_and_nothing_supposed_makes_no_difference(server: Server, keys: dict[str, str]) -> None:
    total = get(server, keys["if-acme"], since="1d", by="total")["total"]
    (row,) = server.sql("SELECT sum(cost_usd) AS cost FROM charges", keys["if-acme"])
    assert (Decimal(total["cost_usd"]), total["difference_usd"]) == (row["cost"], "0")


def test_prices_of_a_file_are_an_operators(server: Server, keys: dict[str, str]) -> None:
    question = {"since": "1d", "where": ["tenant=if-globex"], "prices": "prices:\n  discounts:\n    - percent: 50\n"}

    def post(key: str, body: Any) -> Any:
        return server.http.post("/v1/whatif", json=body, headers={"authorization": f"Bearer {key}"})

    total = post(keys["operator"], question).json()["total"]
    assert Decimal(total["as_if_usd"]) * 2 == Decimal(total["cost_usd"])
    assert post(keys["if-acme"], question).status_code == 403
    wrong = post(keys["operator"], question | {"prices": "prices:\n  discounts:\n    - percnt: 50\n"})
    assert wrong.status_code == 400
    assert "prices:3: prices.discounts[0].percnt: unknown field; did you mean `percent`?" in wrong.json()["error"]["message"]
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases" in post(keys["operator"], question | {"prices": bomb}).json()["error"]["message"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"model": "gpt-4o-mini"}, "'gpt-4o-mini' isn't OLD=NEW"),
        ({"model": "gpt-4o-miny=gpt-5"}, "no model of this time is called 'gpt-4o-miny'"),
        ({"discount": "openai=120%"}, "'openai=120%' is no discount"),
        ({"discount": "opnai=10%"}, "the discount of 'opnai' fits no priced call"),
        ({"by": "custmer"}, "did you mean customer?"),
        ({"where": "customer"}, "'customer' in `where` isn't DIMENSION=VALUE."),
        ({"since": "yesterday"}, "'yesterday' is no time"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "`since` isn't before `until`."),
    ],
)
def test_what_cant_be_supposed_is_told(server: Server, keys: dict[str, str], params: dict[str, str], told: str) -> None:
    status, error = get(server, keys["if-acme"], **({"since": "1d"} | params))
    assert (status, error["code"]) == (400, "bad_supposition")
    assert told in error["message"]


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "whatif", *args], capture_output=True, text=True, env=CLEAN | env, check=False)


def test_on_the_command_line(server: Server, keys: dict[str, str], tmp_path: Path) -> None:
    env = {"TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": keys["if-globex"]}
    done = run("--since", "1d", "--model", "gpt-4o-mini=gpt-4o", "--json", **env)
    (row,) = json.loads(done.stdout)
    assert (row["model"], row["calls"], Decimal(row["cost_usd"])) == ("gpt-4o-mini-2024-07-18", 5, Decimal("0.00105"))
    assert Decimal(row["as_if_usd"]) == 5 * (1000 * Decimal("2.5") + 100 * 10) / 1_000_000
    shown = run("--since", "1d", "--model", "gpt-4o-mini=gpt-4o", "--by", "customer", **env)
    assert "as if USD" in shown.stdout
    assert "another model counts the same text differently" in shown.stderr
    wrong = run("--since", "1d", "--discount", "opnai=5", **env)
    assert (wrong.returncode, "did you mean openai?" in wrong.stderr) == (1, True)


def test_without_a_server(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        server.post(request(span("alone")))
        server.stop()
        done = run("--since", "1d", "--discount", "openai=10%", "--csv", "--data", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("gpt-4o-mini-2024-07-18,1,1100,0.00021,0.000189,-0.000021,"), done
