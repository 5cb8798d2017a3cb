"""Statements on the real engine, the server and the command line: they add up, stay the same, and are one's own."""

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from otlp import request, span
from server import CLEAN, COMMAND, Server

from tallystick.attribution.months import period_named
from tallystick.attribution.showback import Terms, Wanted, statement
from tallystick.attribution.showback_files import WRITERS

OCTOBER = 1_790_812_800  # 2026-10-01
DAY = 86_400
OWN = {"gen_ai.request.model": "own", "gen_ai.response.model": "own"}
EVIL = "=cmd|'/c calc'!A0<script>alert(1)</script>"
RULES = "allocations:\n  - {name: fee, kind: fixed, amount: '10.005', over: customer, by: calls, scope: {customer: acme}, reason: platform fee}\n"


def call(at_s: int, name: str, **who: str) -> Any:
    return span(name, start_ns=(OCTOBER + at_s) * 10**9, attributes={f"tallystick.{key}": value for key, value in who.items()})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of the tenant `default`; `globex` has one call."""
    folder = tmp_path_factory.mktemp("statements")
    (folder / "rules.yaml").write_text(RULES)
    with Server(folder / "data", config=folder / "rules.yaml") as running:
        acme = [call(n * DAY, f"a{n}", customer="acme", feature=("chat", "search")[n % 2]) for n in range(5)]
        unpriced = span(
            "u",
            start_ns=OCTOBER * 10**9,
            attributes={"tallystick.customer": "acme"} | OWN,
        )
        before = call(-DAY, "before", customer="acme")
        others = [call(9, "e", customer=EVIL), call(9, "n"), call(9, "A", customer="ACME")]
        running.post_all([request(*acme, unpriced, before, *others)])
        running.post_all([request(call(3, "g", customer="acme"))], running.key("globex"))
        answer = running.http.post("/v1/allocations/fee", json={"period": "2026-10"})
        assert answer.status_code == 200, answer.text
        yield running


def get(server: Server, key: str | None = None, /, **params: Any) -> Any:
    given = {"period": "2026-10", "for": "customer=acme", "format": "json"} | params
    return server.http.get("/v1/statements", params=given, headers={"authorization": f"Bearer {key}"} if key else {})


def test_what_a_statement_tells(server: Server) -> None:
    found = get(server, server.key("default")).json()
    calls, shared = found["charges"]["lines"]
    assert (calls["name"], calls["calls"], calls["priced_calls"], Decimal(calls["cost_usd"])) == (
        "model calls",
        6,
        5,
        Decimal("0.00105"),
    )
    assert (shared["name"], shared["calls"], Decimal(shared["cost_usd"])) == (
        "shared cost: platform fee",
        0,
        (Decimal("10.005") * 6 / 7).quantize(Decimal("1e-12")),
    )
    assert [line["name"] for line in found["by_feature"]["lines"]] == ["", "chat", "search"]
    assert {line["name"]: line["amount"] for line in found["by_model"]["lines"]}["own"] is None
    assert {line["name"]: line["calls"] for line in found["by_model"]["lines"]} == {"": 0, "gpt-4o-mini-2024-07-18": 5, "own": 1}
    assert [line["name"] for line in found["by_day"]["lines"]] == [f"2026-10-0{day}" for day in range(1, 6)]
    assert Decimal(found["period_before"]["cost_usd"]) == Decimal("0.00021")
    assert found["tokens"] == {"input": 6000, "cache_read": 0, "cache_write": 0, "output": 600}
    assert [(one["name"].split("@")[0], one["calls"]) for one in found["price_sources"]] == [("", 1), ("genai-prices", 5)]
    for table in (found["charges"], found["by_feature"], found["by_model"], found["by_day"]):
        assert sum(Decimal(line["amount"] or 0) for line in table["lines"]) + Decimal(table["rounding"]) == Decimal(
            table["total"]
        )


def test_it_is_the_same_again_as_of_its_time(server: Server) -> None:
    first = get(server).json()
    server.post(request(call(6 * DAY, "late", customer="acme")))
    later = get(server).json()
    assert later["number"] != first["number"]
    assert get(server, as_of=first["as_of"]).json() == first
    assert later["total"]["calls"] == first["total"]["calls"] + 1


def test_markup_and_currency(server: Server) -> None:
    plain, charged = get(server).json(), get(server, markup="15", currency="EUR", rate="0.9").json()
    exact = Decimal(plain["total"]["cost_usd"])
    assert charged["due"] == f"{(exact * Decimal('1.15') * Decimal('0.9')).quantize(Decimal('0.01'))}"
    assert charged["charges"]["lines"][-1]["name"] == "markup 15 %"
    assert charged["by_day"]["total"] == f"{(exact * Decimal('0.9')).quantize(Decimal('0.01'))}"


def test_a_tenants_key_gets_its_own(server: Server) -> None:
    assert get(server, server.key("globex")).json()["total"]["calls"] == 1
    everyone = get(server, server.key("ops", operator=True), **{"for": []}).json()
    (row,) = server.sql("SELECT sum(cost_usd) AS cost FROM charges WHERE toYYYYMM(started_at) = 202610")
    assert Decimal(everyone["total"]["cost_usd"]) == row["cost"]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "style"}]


def test_names_are_text_in_html_and_no_formulas_in_csv(server: Server) -> None:
    answer = get(server, **{"for": f"customer={EVIL}", "format": "html"})
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert "script" not in page.tags
    assert page.links == []
    assert "&lt;script&gt;" in answer.text
    rows = list(csv.DictReader(io.StringIO(get(server, **{"for": f"customer={EVIL}", "format": "csv"}).text)))
    assert all(not str(cell).startswith(("=", "+", "@")) for row in rows for cell in row.values())
    assert {row["for"] for row in rows} == {f"customer {EVIL}"}
    assert sum(Decimal(row["amount"] or 0) for row in rows if row["section"] == "by_day" and row["row"] != "total") == Decimal(
        next(row["amount"] for row in rows if row["section"] == "by_day" and row["row"] == "total")
    )


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"period": "2026-1"}, "'2026-1' is no period: write a month (2026-10)"),
        ({"for": "acme"}, "'acme' isn't DIMENSION=VALUE"),
        ({"for": "custmer=acme"}, "did you mean customer?"),
        ({"currency": "EUR"}, "EUR needs its rate"),
        ({"as_of": "then"}, "'then' is no time"),
    ],
)
def test_what_cant_be_stated(server: Server, params: dict[str, str], told: str) -> None:
    answer = get(server, **params)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def run(server: Server, *args: str) -> subprocess.CompletedProcess[str]:
    env = CLEAN | {"TALLYSTICK_URL": server.url}
    return subprocess.run([*COMMAND, "statement", *args], capture_output=True, text=True, env=env, check=False)


def test_on_the_command_line(server: Server, tmp_path: Path) -> None:
    as_of = get(server).json()["as_of"]
    done = run(server, "--for", "customer=acme", "--period", "2026-10", "--format", "json", "--as-of", as_of)
    assert json.loads(done.stdout) == get(server, as_of=as_of).json(), done.stderr
    done = run(server, "--each", "customer", "--period", "2026-10", "--format", "json", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    found = {file.name: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    names = sorted(re.sub("-[0-9a-f]{8}", "-*", name) for name in found)
    assert names == ["ACME.json", "acme-*.json", "cmd_c_calc_A0_script_alert_1_script-*.json", "none.json"]
    everyone = Decimal(get(server, None, **{"for": []}).json()["total"]["cost_usd"])
    assert sum(Decimal(one["total"]["cost_usd"]) for one in found.values()) == everyone
    page = run(server, "--for", "customer=acme", "--period", "2026-10")
    assert page.stdout.startswith("<!doctype html>")


@pytest.mark.parametrize(
    "args",
    [
        ("--each", "customer", "--period", "2026-10"),
        ("--for", "acme", "--period", "2026-10"),
        ("--for", "custmer=acme", "--period", "2026-10"),
        ("--period", "2026-10", "--currency", "EUR"),
        ("--period", "2026-10", "--markup", "NaN"),
    ],
)
def test_wrong_usage(server: Server, args: tuple[str, ...]) -> None:
    done = run(server, *args)
    assert (done.returncode, "Error" in done.stderr) == (2, True)


USD = st.one_of(st.none(), st.decimals(-(10**6), 10**6, places=12))


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    costs=st.lists(USD, max_size=30),
    markup=st.decimals(-100, 1000, places=4),
    rate=st.decimals("0.000001", 1000, places=6),
)
def test_any_statement_adds_up_to_the_cent(costs: list[Decimal | None], markup: Decimal, rate: Decimal) -> None:
    figures = {
        "who": "",
        "entries": 1,
        "n": 1,
        "input": 1,
        "cache_read": 0,
        "cache_write": 0,
        "output": 0,
        "priced_calls": 0,
        "priced_tokens": 0,
    }

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [figures | {"kind": "call", "name": f"n{at}", "cost": cost} for at, cost in enumerate(costs)]

    wanted = Wanted({}, period_named("2026-10"), datetime(2026, 11, 1, tzinfo=UTC))
    made = statement(ask, wanted, Terms(markup, "EUR", rate))
    exact = sum((cost for cost in costs if cost is not None), Decimal(0)) * (1 + markup / 100) * rate
    assert abs(made.charges.total - exact) <= Decimal("0.005")
    for table in (made.charges, *made.breakdowns):
        assert sum((line.amount or Decimal(0) for line in table.lines), Decimal(0)) + table.rounding == table.total
        assert abs(table.rounding) <= Decimal("0.005") * (len(table.lines) + 1)
    assert all(write(made) for write in WRITERS.values())
