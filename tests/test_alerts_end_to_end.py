"""From a span to a message in Slack: the real server with the smallest configuration, and a local Slack.

`TALLYSTICK_KILLS` says how often it is killed (5).
"""

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from otlp import request, span
from server import Server, free_port

from tallystick.testing.slack import WEBHOOK, SlackServer

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "5"))
SMALLEST = """
channels:
  team: {type: slack, url: "${SLACK_WEBHOOK_URL}"}
budgets:
  - {name: acme, amount: 100, period: month, scope: {customer: acme}, notify: [team]}
  - {name: each-agent, amount: 5, period: day, each: agent, thresholds: [50, 80, 100], notify: [team]}
"""
DOLLAR = 1_000_000 / 0.15
"""Input tokens of gpt-4o-mini."""


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer() as opened:
        yield opened


def served(tmp_path: Path, slack: SlackServer, *, text: str = SMALLEST, every_s: int | None = None) -> Server:
    file = tmp_path / "tallystick.yaml"
    file.write_text(text)
    env = {"SLACK_WEBHOOK_URL": slack.webhook_url, "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1"}
    env |= {"TALLYSTICK_ALERTS_EVERY_S": str(every_s)} if every_s else {}
    return Server(tmp_path / "data", port=free_port(), env=env, config=file)


def spend(server: Server, call: str, dollars: float, **scope: str) -> None:
    """One call of so much, which ends now."""
    tokens = {"gen_ai.usage.input_tokens": round(dollars * DOLLAR), "gen_ai.usage.output_tokens": 0}
    of = {f"tallystick.{name}": value for name, value in scope.items()}
    answer = server.post(request(span(call, start_ns=time.time_ns() - 10**9, attributes=tokens | of)))
    assert answer.status_code == 200, answer.text


def until(condition: Callable[[], object], what: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def titles(slack: SlackServer) -> list[str]:
    """Without their ends, `this month` or `in 2026-03`: a test may run over midnight."""
    return [message.title.partition(" used")[0] + " used" for message in slack.messages]


def test_a_span_reaches_slack(tmp_path: Path, slack: SlackServer) -> None:
    """By default settings; how long it takes is printed."""
    with served(tmp_path, slack) as server:
        spend(server, "call", 51, customer="acme", agent="planner")
        arrived = time.monotonic()
        until(lambda: any(title.startswith("acme") for title in titles(slack)), server.log)
        print(f"\nfrom the span's arrival to Slack: {time.monotonic() - arrived:.1f} s")
        # The day of the agent is over its line, too.
        until(lambda: len(slack.messages) == 2, server.log)
        server.stop()
    assert sorted(titles(slack)) == ["acme: 51 % of 100.00 USD used", "each-agent (planner): 1,020 % of 5.00 USD used"]
    assert set(slack.statuses) == {200}


def test_kills(tmp_path: Path, slack: SlackServer) -> None:
    chance = random.Random(20261121)
    slack.least_s = 0.0
    server = served(tmp_path, slack, every_s=1)
    try:
        for number in range(KILLS):
            server.start()
            spend(server, f"call-{number}", 6, agent=f"agent-{number}")
            time.sleep(chance.uniform(0, 2.5))
            server.kill()
        server.start()
        expected = {f"each-agent (agent-{number})" for number in range(KILLS)}
        # A message whose sender was killed is due again when its claim is over, after two minutes.
        until(lambda: {title.partition(":")[0] for title in titles(slack)} >= expected, server.log, limit_s=240)
        heard = len(slack.messages)
        spend(server, "last", 6, agent="last")
        until(lambda: len(slack.messages) > heard, server.log)
        server.stop()
    finally:
        server.kill()
    with closing(sqlite3.connect(tmp_path / "data" / "alerts.db")) as alerts:
        ((intents,),) = alerts.execute("SELECT count(*) FROM alert_messages")
        states = dict(alerts.execute("SELECT state, count(*) FROM alert_deliveries GROUP BY state"))
    told = Counter(title.partition(":")[0] for title in titles(slack))
    twice = sum(count - 1 for count in told.values())
    print(
        f"\n{KILLS} kills: {intents} intents, {len(told)} told, {twice} delivered again after a kill between the send and its record"
    )
    assert told.keys() == expected | {"each-agent (last)"}
    assert intents == KILLS + 1
    assert states == {"sent": KILLS + 1}
    assert twice <= max(1, KILLS // 5)


def test_the_file_is_edited_while_it_runs(tmp_path: Path, slack: SlackServer) -> None:
    file = tmp_path / "tallystick.yaml"
    with served(tmp_path, slack, every_s=1) as server:
        spend(server, "globex", 60, customer="globex", agent="a")
        until(lambda: len(slack.messages) == 1, server.log)
        file.write_text(
            SMALLEST.replace("agent, thr", "agnet, thr")
            + "  - {name: globex, amount: 100, period: month, scope: {customer: globex}, notify: [team]}\n"
        )
        until(lambda: len(slack.messages) == 2, server.log)
        assert titles(slack)[-1] == "globex: 60 % of 100.00 USD used"
        assert "did you mean `agent`?" in server.log()
        file.write_text("channels: [")
        until(lambda: "can't be read" in server.log(), server.log)
        spend(server, "more", 25, customer="globex", agent="b")
        until(lambda: len(slack.messages) == 3, server.log)
        assert titles(slack)[-1] == "globex: 85 % of 100.00 USD used"
        server.stop()


def test_the_webhook_is_nowhere_to_be_read(tmp_path: Path, slack: SlackServer) -> None:
    slack.revoke()
    with served(tmp_path, slack, every_s=1) as server:
        spend(server, "acme", 51, customer="acme", agent="a")
        until(lambda: "refused" in server.log(), server.log)
        server.stop()
    secret = WEBHOOK.rpartition("/")[2]
    assert secret not in server.log()
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert any(path.name == "alerts.db" for path in kept)
    assert [path for path in kept if secret.encode() in path.read_bytes()] == []
