"""Who is told what became of all spans, and what `doctor` makes of it with either kind of key."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from otlp import request, span
from server import CLEAN, COMMAND, Server

FIGURES = {"received_spans", "stored_calls", "dropped_spans", "rejected_spans", "refused_requests", "queue"}
OWN_MODEL = {"gen_ai.provider.name": "vllm", "gen_ai.request.model": "house", "gen_ai.response.model": "house"}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two calls of acme, and of globex five that have no price, of which two are the same, and three spans that are no calls."""
    with Server(tmp_path_factory.mktemp("status") / "data") as server:
        server.post_all([request(span("one"), span("two"))], server.key("acme"))
        globex = [request(span(f"globex-{number % 4}", attributes=OWN_MODEL)) for number in range(5)]
        nothing = {"gen_ai.operation.name": "execute_tool"}
        server.post_all([*globex, request(*(span(f"tool-{n}", attributes=nothing) for n in range(3)))], server.key("globex"))
        yield server


def doctor(server: Server, key: str) -> tuple[int, dict[str, dict[str, Any]]]:
    command = [*COMMAND, "doctor", "--url", server.url, "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**CLEAN, "TALLYSTICK_KEY": key},
        check=False,
        cwd=server.data.parent,
    )
    return done.returncode, {check["what"]: check for check in json.loads(done.stdout)}


def test_an_operator_is_told(busy: Server) -> None:
    for headers in ({}, {"authorization": f"Bearer {busy.key('ops', operator=True)}"}):
        answer = busy.http.get("/v1/status", headers=headers)
        assert answer.status_code == 200
        assert answer.json().keys() >= FIGURES
        assert (answer.json()["received_spans"], answer.json()["stored_calls"]) == (10, 6)


def test_a_tenant_is_told_no_figure_and_why(busy: Server) -> None:
    answer = busy.http.get("/v1/status", headers={"authorization": f"Bearer {busy.key('acme')}"})
    assert answer.status_code == 403
    assert answer.json() == {
        "error": {
            "code": "forbidden",
            "message": "A member's key isn't for this.",
            "hint": "Ask with an operator's key; `tallystick keys create --tenant NAME --role ROLE` makes one.",
        }
    }


def test_nobodys_key_is_told_nothing(busy: Server) -> None:
    assert busy.http.get("/v1/status", headers={"authorization": "Bearer ts_nobody"}).status_code == 401


def test_doctor_with_an_operators_key(busy: Server) -> None:
    code, checks = doctor(busy, busy.key("ops", operator=True))
    assert code == 0
    assert checks["received"]["found"] == "10 spans, 6 calls stored"
    assert checks["dropped"]["found"].startswith("3 ")
    assert checks["priced"]["found"] == "33.3 % of tokens and 33.3 % of calls in 30 days"


def test_doctor_with_a_tenants_key_works_and_says_what_it_cant_see(busy: Server) -> None:
    code, checks = doctor(busy, busy.key("acme"))
    assert code == 0
    assert checks["received"]["state"] == "ok"
    assert checks["received"]["found"].startswith("not told to a tenant's key: what was received, dropped and rejected")
    assert "this key's tenant" in checks["received"]["advice"]
    assert not checks.keys() & {"dropped", "rejected", "refused requests", "failed inserts"}
    assert checks["priced"]["found"] == "100.0 % of tokens and 100.0 % of calls in 30 days"


def test_doctor_of_a_tenant_without_calls(busy: Server) -> None:
    code, checks = doctor(busy, busy.key("idle"))
    assert (code, checks["priced"]["found"]) == (0, "no calls in 30 days")


def test_doctor_with_nobodys_key_fails(busy: Server) -> None:
    code, checks = doctor(busy, "ts_nobody")
    assert code == 1
    assert checks["ledger"] == {
        "state": "fail",
        "what": "ledger",
        "found": "the server refuses: The key is unknown or revoked.",
        "advice": "Send `Authorization: Bearer KEY`; `tallystick keys create --tenant NAME` makes a key.",
    }
