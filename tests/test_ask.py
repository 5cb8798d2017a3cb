"""Named questions as they are asked: over HTTP, by the client, on the command line with a server and without."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from otlp import request, span
from server import CLEAN, COMMAND, Server

from tallystick.attribution.questions import questions
from tallystick.client import Client, Refused

KEY_OF = {"acme": 3, "initech": 1}
"""Customer → calls of 0.00021 USD."""


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    key = server.key("asks")
    spans = [
        span(f"{customer} {n}", attributes={"tallystick.customer": customer, "tallystick.tag.plan": "pro"})
        for customer, calls in KEY_OF.items()
        for n in range(calls)
    ]
    server.post_all([request(*spans)], key)
    return key


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with the same calls, which no server holds."""
    data = tmp_path_factory.mktemp("asked") / "data"
    with Server(data) as server:
        server.post_all([request(*(span(f"{n}", attributes={"tallystick.customer": "=acme"}) for n in range(3)))])
        server.stop()
        yield data


def ask(*arguments: str, url: str = "", key: str = "", data: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--data", str(data)] if data else ["--url", url] if url else []
    env = {**CLEAN, "TALLYSTICK_KEY": key} if key else CLEAN
    return subprocess.run([*COMMAND, "ask", *arguments, *where], capture_output=True, text=True, env=env, timeout=60, check=False)


def test_all_are_listed_with_what_they_mean(server: Server, key: str) -> None:
    with Client(server.url, key) as client:
        listed = {one["name"]: one for one in client.questions()}
    assert listed.keys() == questions().keys()
    spend = listed["spend"]
    assert spend["sentence"] == "What was spent, by any dimensions, the dearest first."
    assert spend["definition"]["calls"] == "calls, without those that were entered twice"
    assert spend["parameters"][0] == {
        "name": "by", "kind": "dimensions", "default": "customer", "meaning": "what to group by; `total` is one row", "choices": [],
    }  # fmt: skip


def test_an_answer_has_rows_definitions_and_its_sql(server: Server, key: str) -> None:
    found = server.http.get(
        "/v1/q/spend", params={"by": "tag:plan", "where": ["customer=acme", "tag:plan=pro"]}, headers=bearer(key)
    ).json()
    assert found["name"] == "spend"
    assert [column["name"] for column in found["columns"]] == ["tag:plan", *questions()["spend"].definition]
    assert found["rows"] == [["pro", 3, 3300, "0.00063", 1, 1, 1]]
    again = server.http.post("/v1/sql", json={"query": found["sql"], "params": found["params"]}, headers=bearer(key)).json()
    assert again["rows"] == found["rows"]


def test_the_client_asks(server: Server, key: str) -> None:
    with Client(server.url, key) as client:
        rows = client.ask("spend", by="customer", since="1d", where=["feature="], limit=1).dicts()
        assert [(row["customer"], row["calls"], row["cost_usd"]) for row in rows] == [("acme", 3, Decimal("0.00063"))]
        for name, params, status, code, said in (
            ("spent", {}, 404, "no_such_question", "no question 'spent': did you mean spend?"),
            ("spend", {"buy": "customer"}, 400, "bad_parameter", "buy: spend has no such parameter: did you mean by?"),
            ("spend", {"by": "../x"}, 400, "bad_parameter", "by: no dimension '../x'"),
            ("../sql", {}, 404, "not_found", ""),
        ):
            with pytest.raises(Refused) as refused:
                client.ask(name, **params)
            assert (refused.value.status, refused.value.code) == (status, code)
            assert refused.value.message.startswith(said)


def test_a_tenant_is_answered_for_itself(server: Server, key: str) -> None:
    with Client(server.url, server.key("asks-nothing")) as client:
        assert client.ask("spend", where="tenant=asks").rows == []
    assert server.http.get("/v1/q", headers=bearer("wrong")).status_code == 401
    assert server.http.get("/v1/q/spend", headers=bearer("wrong")).status_code == 401


def test_the_command_answers_as_the_server_does(server: Server, key: str) -> None:
    done = ask("spend", "--by", "customer", "--json", url=server.url, key=key)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    with Client(server.url, key) as client:
        assert [(row["customer"], Decimal(row["cost_usd"])) for row in rows] == [
            (row["customer"], row["cost_usd"]) for row in client.ask("spend", by="customer").dicts()
        ]
    assert {row["customer"]: row["calls"] for row in rows} == KEY_OF


def test_the_command_answers_without_a_server(data: Path) -> None:
    done = ask("spend", "-p", "by=customer", "--where", "customer==acme", "--csv", data=data)
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    # A name that a spreadsheet would take for a formula.
    assert (row["customer"], row["calls"], row["cost_usd"]) == ("'=acme", "3", "0.00063")
    table = ask("spend", data=data)
    assert "=acme" in table.stdout
    assert "0.00063000" in table.stdout
    assert "1 row;" in table.stderr


def test_the_command_lists_describes_and_shows_sql() -> None:
    assert {row["name"] for row in json.loads(ask("--json").stdout)} == questions().keys()
    assert "top-drivers" in ask().stdout
    told = ask("cost-per-outcome", "--describe").stdout
    assert "spend_without_outcome_usd" in told
    assert "lookback" in told
    (described,) = json.loads(ask("spend", "--describe", "--json").stdout)
    assert described["parameters"][0]["name"] == "by"
    sql = ask("spend", "--sql", "--where", "customer=x").stdout
    assert "-- where_0 = 'x'" in sql
    assert "FROM charges" in sql


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["spent"], "no question 'spent': did you mean spend?"),
        (["spend", "--by", "costumer"], "by: no dimension 'costumer': did you mean customer?"),
        (["spend", "-p", "limit"], "'limit' isn't NAME=VALUE"),
        (["spend", "-p", "limt=3"], "limt: spend has no such parameter: did you mean limit?"),
        (["spend", "--by", "day", "-p", "by=day"], "by: it is given more than once"),
        (["spend", "--since", "now", "--until", "1d"], "since: it isn't before `until`"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str) -> None:
    done = ask(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
