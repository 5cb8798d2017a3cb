"""Guards bound to budgets of the real server: several processes, one limit."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from otlp import request, span
from server import CLEAN, Server

from tallystick.ingest.keys import Role
from tallystick.testing import ProviderServer

FILE = """
budgets:
  - {name: acme, amount: 0.01, period: month, scope: {customer: acme}, notify: []}
  - {name: each customer, measure: calls, amount: 3, period: month, scope: {feature: trial}, each: customer, notify: []}
  - {name: of globex, amount: 1, period: month, scope: {tenant: globex}, notify: []}
  - {name: each tenant, amount: 100, period: month, each: tenant, notify: []}
"""

SERVICE = """
import json, os, sys, time
import tallystick.auto, tallystick, openai
from tallystick.collectors.guard.server import watched

gpt = openai.OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)
ask = [{"role": "user", "content": "a secret question"}]
went, stopped = 0, []

def call(model="gpt-4o-mini"):
    global went
    try:
        gpt.chat.completions.create(model=model, messages=ask, max_completion_tokens=100)
    except tallystick.BudgetExceeded as error:
        stopped.append(error)
    else:
        went += 1

def heard(number):
    deadline = time.monotonic() + 20
    while watched().budgets.heard is None or watched().budgets.heard.number < number:
        assert time.monotonic() < deadline, watched().poller.trouble
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("configuration") / "budgets.yaml"
    file.write_text(FILE)
    with Server(tmp_path_factory.mktemp("server") / "data", config=file) as running:
        yield running


def launch(script: str, provider: ProviderServer, url: str, **env: str) -> subprocess.Popen[str]:
    given = CLEAN | {"TALLYSTICK_URL": url, "PROVIDER": provider.url, "TALLYSTICK_GUARD_POLL": "1", **env}
    code = SERVICE + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code], env=given, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str]) -> tuple[Any, str]:
    """What it printed last, as JSON, and what it complained of."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1]), errors


def guard(server: Server, key: str | None = None, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    return server.http.get("/v1/guard", headers=sent)


def test_two_processes_share_a_budget(server: Server, provider: ProviderServer) -> None:
    """A call takes 0.00021 USD (1,200 tokens in, 50 out): of 0.01 USD there is room for 47."""
    script = """
    with tallystick.guard(budget="acme", wait_s=20), tallystick.scope(customer="acme"):
        call()
        print("ready", flush=True)
        sys.stdin.readline()
        while not stopped and went < 100:
            call()
            if went % 8 == 0:
                assert tallystick.flush()
                heard(watched().budgets.heard.number + 2)
    print(json.dumps([went, str(stopped[0]), str(stopped[0].limit)]))
    """
    provider.calls.clear()
    both = [launch(script, provider, server.url) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [ended(process)[0] for process in both]
    assert sum(went for went, _, _ in told) == len(provider.calls)
    spent = server.sql("SELECT sum(cost_usd) AS spent, sum(calls) AS calls FROM charges WHERE customer = 'acme'")
    assert len(provider.calls) * Decimal("0.00021") == spent[0]["spent"]
    # Of what the other did since it last told of its calls a process knows nothing: eight calls more at most.
    assert Decimal("0.009") < spent[0]["spent"] <= Decimal("0.01") + 8 * Decimal("0.00021")
    for _, said, limit in told:
        assert "the limit of a budget 'acme' is 0.01 USD" in said
        assert "Raise the budget on the server" in said
        assert limit == "0.01"


def test_what_was_stopped_is_in_the_ledger_and_costs_nothing(server: Server, provider: ProviderServer) -> None:
    script = """
    import anthropic, builtins, threading
    from concurrent.futures import ThreadPoolExecutor
    claude = anthropic.Anthropic(base_url=os.environ["PROVIDER"], api_key="k", max_retries=0)
    with tallystick.guard(max_tokens_per_call=1), tallystick.scope(customer="stopped"):
        call()
        try:
            claude.messages.create(model="claude-haiku-4-5", messages=ask, max_tokens=10)
        except tallystick.BudgetExceeded as error:
            stopped.append(error)
    with tallystick.guard(max_tokens_per_call=1), tallystick.scope(customer="in threads"):
        thread = threading.Thread(target=call)
        with ThreadPoolExecutor(1) as pool:
            thread.start()
            pool.submit(call).result()
            thread.join()
    with tallystick.guard(max_tokens_per_call=1, fallback=lambda request: "instead"), tallystick.scope(customer="answered"):
        answer = gpt.chat.completions.create(model="gpt-4o", messages=ask)
    assert tallystick.flush()
    print(json.dumps([went, len(stopped), answer]))
    with tallystick.guard(max_usd_per_session=1):
        builtins.never_closed = gpt.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True)
    """
    told, errors = ended(launch(script, provider, server.url, TALLYSTICK_STRICT="1"))
    assert told == [0, 4, "instead"]
    rows = server.sql(
        "SELECT provider, request_model, calls, status, error_type, usage_source, cost_usd, input_tokens FROM charges"
        " WHERE customer = 'stopped' ORDER BY provider"
    )
    assert [row["provider"] for row in rows] == ["anthropic", "openai"]
    for row in rows:
        assert (row["status"], row["usage_source"], row["cost_usd"]) == ("error", "none", 0)
        assert row["error_type"] == "BudgetExceeded"
    (row,) = server.sql("SELECT status, usage_source, cost_usd FROM charges WHERE customer = 'answered'")
    assert row == {"status": "ok", "usage_source": "none", "cost_usd": 0}
    assert errors == ""


def test_each_customer_has_a_budget_of_calls(server: Server, provider: ProviderServer) -> None:
    script = """
    guard = tallystick.guard(budget="*", wait_s=20).install()
    told = {}
    for customer in ("a", "b"):
        with tallystick.scope(customer=customer, feature="trial"):
            went = 0
            for _ in range(5):
                call()
            told[customer] = went
    with tallystick.scope(customer="a", feature="other"):
        call()
    assert tallystick.flush()
    # What the server knows by now isn't added to what it says.
    heard(watched().budgets.heard.number + 2)
    with tallystick.scope(customer="b", feature="trial"):
        call()
    last = stopped.pop()
    with tallystick.guard(budget="acmee", on_unreachable="closed"):
        call()
    known = sorted({standing.subject for standing in guard.standings()})
    print(json.dumps([told, went, last.excess.subject, str(last.spent), known, str(stopped[-1])]))
    """
    (told, went, subject, spent, known, misnamed), errors = ended(launch(script, provider, server.url, TALLYSTICK_STRICT="1"))
    assert told == {"a": 3, "b": 3}
    assert went == 4, "three of customer b's, and one of another feature"
    assert subject == "each customer: b"
    # Stopped calls are in the ledger as calls that cost nothing, and count as calls.
    assert int(spent) >= 3
    assert {"each customer: a", "each customer: b", "each tenant"} <= set(known)
    assert "how budget 'acmee' stands isn't known" in misnamed
    assert "the server has no budget of this name" in errors


def test_a_server_that_cannot_be_asked(provider: ProviderServer) -> None:
    script = """
    with tallystick.guard(budget="acme", on_unreachable="open", stale_after_s=0.2, wait_s=5):
        call()
        time.sleep(0.3)
        call()
    with tallystick.guard(budget="acme", on_unreachable="closed", stale_after_s=0.2):
        call()
    print(json.dumps([went, [str(one) for one in stopped]]))
    """
    (went, stopped), errors = ended(launch(script, provider, "http://127.0.0.1:9", TALLYSTICK_KEY="the-key"))
    assert went == 2
    assert "budget 'acme' stands isn't known: the server can't be asked. Look why (ConnectionError)" in stopped[0]
    assert errors.count("budgets can't be asked of the server (ConnectionError)") == 1
    assert "the-key" not in errors + str(stopped)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_asks_for_itself_and_leaves_its_parents_reservations(server: Server, provider: ProviderServer) -> None:
    script = """
    guard = tallystick.guard(budget="*", max_tokens_per_session=100_000, wait_s=20)
    with guard, tallystick.scope(customer="forked"):
        stream = gpt.chat.completions.create(model="gpt-4o-mini", messages=ask, stream=True)
        heard(1)
        if os.fork() == 0:
            (session,) = (one for one in guard.standings() if one.per == "session")
            assert session.reserved == 0, session
            before = watched().budgets.heard.number
            call()
            heard(before + 1)
            os._exit(0 if went == 1 else 1)
        assert os.wait()[1] == 0
        (session,) = (one for one in guard.standings() if one.per == "session")
        assert session.reserved > 0
        list(stream)
        (session,) = (one for one in guard.standings() if one.per == "session")
    print(json.dumps([str(session.reserved), session.spent > 0]))
    """
    assert ended(launch(script, provider, server.url, TALLYSTICK_STRICT="1"))[0] == ["0", True]


def test_a_tenants_key_is_told_nothing_of_others(server: Server, tmp_path: Path) -> None:
    writer, other, operator = (
        server.key("shop", role=Role.WRITER), server.key("globex", role=Role.WRITER), server.key("ops", operator=True)
    )  # fmt: skip
    number = time.time_ns()
    attributes = {"tallystick.feature": "trial", "tallystick.customer": "mine"}
    for key, customer, calls in ((writer, "mine", 1), (other, "theirs", 2), (other, "both", 3), (writer, "both", 1)):
        given = attributes | {"tallystick.customer": customer}
        server.post_all([request(*(span(f"{number}-{customer}-{key}-{n}", attributes=given) for n in range(calls)))], key)
    budgets = {one["name"]: one for one in guard(server, writer).json()["budgets"]}
    assert budgets.keys() == {"acme", "each customer", "each tenant"}
    values = {one["value"]: one for one in budgets["each customer"]["values"]}
    assert values == {
        "mine": {"value": "mine", "spent": "1", "exhausted": False},
        # What others spent isn't told, but that nothing is left.
        "both": {"value": "both", "spent": "1", "exhausted": True},
    }
    assert (budgets["each tenant"]["each"], budgets["each tenant"]["values"][0]["spent"]) == (None, "0.000420000000")
    globex = {one["name"]: one for one in guard(server, other).json()["budgets"]}
    assert (globex["of globex"]["scope"], globex["of globex"]["values"][0]["spent"]) == ({}, "0.001050000000")
    whole = {one["name"]: one for one in guard(server, operator).json()["budgets"]}
    assert {"value": "both", "spent": "4", "exhausted": True} in whole["each customer"]["values"]
    assert guard(server, server.key("shop", role=Role.READER)).status_code == 403
    end = datetime.fromisoformat(budgets["acme"]["period"]["end"])
    assert (end.day, end.hour, end.tzinfo) == (1, 0, UTC)


def test_an_answer_that_still_holds_is_not_sent_again(server: Server) -> None:
    key = server.key("quiet", role=Role.WRITER)
    first = guard(server, key)
    again = guard(server, key, if_none_match=first.headers["etag"])
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert 0 <= int(again.headers["age"]) <= 3
    # Others' calls change nothing that this key is told.
    server.post_all([request(span(f"loud-{time.time_ns()}"))], server.key("loud"))
    time.sleep(2.1)
    assert guard(server, key, if_none_match=first.headers["etag"]).status_code == 304
