"""`tallystick api` and `tallystick alerts run` over a ClickHouse server: each in a process of its own, with its own user and nothing more."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse import ClickHouse
from otlp import request, span
from server import CLEAN, COMMAND, Server, free_port

BUDGETS = """
budgets:
  - {name: all, amount: 0.0001, period: month, thresholds: [100], notify: []}
"""


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """With ten calls of this minute, entered by an `up` that has ended."""
    home = tmp_path_factory.mktemp("roles")
    with ClickHouse(home / "clickhouse") as running:
        with Server(home / "up", env={**running.env(), "TALLYSTICK_ALERTS_EVERY_S": "0"}) as up:
            up.post_all([request(*(span(f"role-{n}", attributes={"tallystick.customer": "acme"}) for n in range(10)))])
        yield running


@contextmanager
def role(*command: str, env: Mapping[str, str]) -> Iterator[str]:
    """A role's process, by its URL. Ends well on SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, *command], env={**CLEAN, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), process.communicate()[1]
        yield line.split()[1]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()


def environment(clickhouse: ClickHouse, name: str, data: Path) -> dict[str, str]:
    return {
        **clickhouse.env(name),
        "TALLYSTICK_DATA": str(data),
        "TALLYSTICK_ALERTS_URL": f"sqlite:///{data.parent / 'alerts.db'}",
    }


def test_apis_are_alike_and_receive_nothing(clickhouse: ClickHouse, tmp_path: Path) -> None:
    keys = {"TALLYSTICK_KEYS": str(tmp_path / "keys.json")}
    envs = [environment(clickhouse, "api", tmp_path / name) | keys for name in ("a", "b")]
    with role("api", "--port", "0", env=envs[0]) as one, role("api", "--port", "0", env=envs[1]) as other:
        answers = [httpx.get(f"{url}/v1/spend?by=customer", trust_env=False, timeout=60) for url in (one, other)]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["total"]["calls"] == 10
        tag = answers[0].headers["etag"]
        assert answers[1].headers["etag"] == tag
        again = httpx.get(f"{other}/v1/spend?by=customer", headers={"if-none-match": tag}, trust_env=False, timeout=60)
        assert again.status_code == 304

        sent = httpx.post(f"{one}/v1/traces", json={}, trust_env=False)
        assert (sent.status_code, sent.json()["error"]["code"]) == (404, "no_receiver")
        assert httpx.get(f"{one}/readyz", trust_env=False).json() == {"status": "ready"}

        question = {"since": "1d", "reason": "test"}
        void = {"trace_id": span("role-0").trace_id.hex(), "span_id": span("role-0").span_id.hex(), "reason": "test"}
        made = httpx.post(f"{one}/v1/corrections/void", json=void, trust_env=False, timeout=60)
        assert made.status_code == 200, made.text
        twice = httpx.post(f"{other}/v1/corrections/void", json=void, trust_env=False, timeout=60)
        assert (twice.status_code, twice.json()["error"]["code"]) == (404, "no_such_call")
        assert httpx.post(f"{other}/v1/corrections/reprice", json=question, trust_env=False, timeout=60).status_code == 200
        changed = httpx.get(f"{other}/v1/spend?by=customer", headers={"if-none-match": tag}, trust_env=False, timeout=60)
        assert (changed.status_code, changed.json()["total"]["calls"]) == (200, 9)


def test_alerts_are_judged_in_a_process_of_their_own(clickhouse: ClickHouse, tmp_path: Path) -> None:
    config = tmp_path / "tallystick.yaml"
    config.write_text(BUDGETS)
    judge = environment(clickhouse, "alerts", tmp_path / "alerts") | {"TALLYSTICK_ALERTS_EVERY_S": "1"}
    show = environment(clickhouse, "api", tmp_path / "api")
    port = str(free_port())
    with (
        role("alerts", "run", "--config", str(config), "--health-port", port, env=judge) as health,
        role("api", "--port", "0", "--config", str(config), env=show) as api,
    ):
        until = time.monotonic() + 60
        while not (said := httpx.get(f"{api}/v1/alerts", trust_env=False, timeout=60).json()["alerts"]):
            assert time.monotonic() < until
            time.sleep(0.2)
        assert [one["subject"] for one in said] == ["all"]
        assert httpx.get(f"{health}/readyz", trust_env=False).status_code == 200
        # P10: what was said is what the API says.
        (budget,) = httpx.get(f"{api}/v1/budgets", trust_env=False, timeout=60).json()["budgets"]
        spend = httpx.get(f"{api}/v1/spend?by=total&since=40d", trust_env=False, timeout=60).json()
        assert Decimal(budget["values"][0]["spent"]) == Decimal(spend["total"]["cost_usd"])
        assert Decimal(said[0]["message"]["spent"]) == Decimal(spend["total"]["cost_usd"])
        assert httpx.post(f"{api}/v1/alerts/evaluate", trust_env=False, timeout=60).status_code == 409


def told(*command: str, env: Mapping[str, str]) -> Any:
    done = subprocess.run([*COMMAND, *command, "--json"], env={**CLEAN, **env}, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_commands_ask_the_server_itself(clickhouse: ClickHouse, tmp_path: Path) -> None:
    env = {**clickhouse.env("api"), "TALLYSTICK_DATA": str(tmp_path / "none")}
    (row,) = told("costs", "--by", "customer", env=env)
    # Others may have voided one by then.
    assert (row["customer"], row["calls"]) == ("acme", int(clickhouse.ask("SELECT sum(calls) FROM tallystick.ledger")))
    found = {check["what"]: check for check in told("doctor", env=env)}
    assert found["ClickHouse"]["state"] == "ok"
    assert "schema" in found["ClickHouse"]["found"]
    refused = {check["what"]: check for check in told("doctor", env=env | {"TALLYSTICK_CLICKHOUSE_PASSWORD": "wrong"})}
    assert refused["ClickHouse"]["state"] == "fail"
    assert "wrong" not in json.dumps(refused)
    assert list(tmp_path.iterdir()) == []
