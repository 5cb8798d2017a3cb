"""`tallystick budgets` and `tallystick alerts`: with a real server and a local Slack, and validation without either."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from otlp import request, span
from server import Server

from tallystick.cli import cli
from tallystick.cli.failure import Failure, in_words
from tallystick.testing import SlackServer

FILE = """
prices:
  models:
    - {model: house, per_million_tokens: {input: 1}}
channels:
  team: {type: slack, url: "${SLACK_URL}"}
budgets:
  - {name: acme, amount: 0.0004, period: month, scope: {customer: acme}, notify: [team]}
  - {name: each-agent, amount: 5, period: day, each: agent, notify: [team]}
rules:
  - {name: unpriced, type: unpriced, notify: [team]}
"""
SECRET = "https://hooks.slack.com/services/T0/B0/s3cret"

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackServer]:
    with SlackServer(least_s=0) as running:
        yield running


@pytest.fixture(scope="module")
def server(slack: SlackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It evaluates when it starts, and when it is asked to. Two calls of acme's are in its ledger."""
    home = tmp_path_factory.mktemp("cli")
    (home / "budgets.yaml").write_text(FILE)
    env = {
        "TALLYSTICK_CONFIG": str(home / "budgets.yaml"), "SLACK_URL": slack.webhook_url,
        "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1", "TALLYSTICK_ALERTS_EVERY_S": "3600",
    }  # fmt: skip
    with Server(home / "data", env=env) as running:
        calls = [
            span(name, attributes={"tallystick.customer": "acme", "tallystick.agent": name}) for name in ("planner", "crawler")
        ]
        running.post_all([request(*calls)])
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command, in a shell whose user is ana. What it lets through is told as `main` tells it."""
    for name in [name for name in os.environ if name.startswith("TALLYSTICK_")]:
        monkeypatch.delenv(name)

    def invoke(*args: str, env: dict[str, str] | None = None) -> Result:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(cli, args, env={"LOGNAME": "ana"})
        if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
            shown = in_words(result.exception)
            hint = shown.hint if isinstance(shown, Failure) else ""
            result.exit_code, result.stderr_bytes = shown.exit_code, f"{shown.message}\n{hint}".encode()
        return result

    return invoke


@pytest.fixture
def ask(run: Run, server: Server) -> Run:
    """A command of the running server that succeeds."""

    def invoke(*args: str) -> Result:
        result = run(*args, "--url", server.url)
        assert result.exit_code == 0, result.stderr
        return result

    return invoke


@pytest.fixture
def fail(run: Run, server: Server) -> Callable[..., str]:
    """What a command of the running server fails with."""

    def invoke(*args: str) -> str:
        result = run(*args, "--url", server.url)
        assert result.exit_code == 1, result.output
        return result.stderr

    return invoke


def rows(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


# Without a server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "budgets.yaml"
    path.write_text(FILE)
    return path


def test_a_file_without_problems(run: Run, file: Path) -> None:
    result = run("budgets", "validate", str(file), env={"SLACK_URL": SECRET})
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: fine; channels: 1, budgets: 2, rules: 1\n", "")
    assert rows(run("budgets", "validate", str(file), "--json")) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("amount: 5", "amount: -5", ["9:32: budgets[1].amount: must be greater than 0"]),
        ("each: agent", "each: agnet", ["budgets[1].each: no such dimension; did you mean `agent`?"]),
        ("{type: slack", "{type: slck", ["6:16: channels.team.type: no such type; did you mean `slack`?"]),
        ("${SLACK_URL}", "${NO_SUCH}", ["6:28: channels.team.url: the environment variable `NO_SUCH` isn't set"]),
        ("${SLACK_URL}", "https://10.1.2.3/s3cret", ["6:28: channels.team.url: ", "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS=1"]),
        ("${SLACK_URL}", "https://u:s3cret@a.example", ["channels.team.url: it has a user name or password"]),
        ('"${SLACK_URL}"}', '"${SLACK_URL}", template: own.j2}', ["channels.team.template: ", "own.j2, line 2: "]),
        ("budgets:", "budgets: [", ["not valid YAML"]),
    ],
)
def test_problems_have_file_line_and_field(run: Run, file: Path, old: str, new: str, told: list[str]) -> None:
    (file.parent / "own.j2").write_text("{{ text.title }}\n{{ text.titel }}\n")
    file.write_text(FILE.replace(old, new))
    result = run("budgets", "validate", str(file), env={"SLACK_URL": SECRET})
    assert result.exit_code == 1
    assert all(line.startswith(f"{file}:") for line in result.stdout.splitlines())
    assert all(one in result.stdout for one in told), result.stdout
    assert "s3cret" not in result.output + result.stderr
    as_json = run("budgets", "validate", str(file), "--json")
    assert as_json.exit_code == 1
    assert len(rows(as_json)) == len(result.stdout.splitlines())
    assert set(rows(as_json)[0]) == {"kind", "file", "line", "column", "field", "text"}


def test_a_private_address_where_it_is_allowed(run: Run, file: Path) -> None:
    env = {"SLACK_URL": "http://127.0.0.1:1/", "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1"}
    assert run("budgets", "validate", str(file), env=env).exit_code == 0


def test_a_warning_is_no_failure(run: Run, file: Path) -> None:
    file.write_text("budgets: [{name: a, amount: 1, period: day, notify: []}, {name: b, amount: 2, period: day, notify: []}]")
    result = run("budgets", "validate", str(file))
    assert result.exit_code == 0
    assert "counts the same spend over the same periods as the budget in line 1 (a warning)" in result.stdout
    assert [one["kind"] for one in rows(run("budgets", "validate", str(file), "--json"))] == ["warning"]


def test_prices_are_read_from_the_same_file(run: Run, file: Path) -> None:
    result = run("prices", "check", str(file))
    assert (result.exit_code, result.stdout) == (0, f"{file}: fine, 1 models priced\n")
    file.write_text(FILE.partition("channels:")[2].replace("\n  team", "channels:\n  team", 1))
    assert run("prices", "check", str(file)).stdout == f"{file}: fine, 0 models priced\n"


@pytest.mark.parametrize("command", [("budgets", "list"), ("alerts", "status"), ("budgets", "delete", "a")])
def test_without_a_server(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run(*command, "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "no server runs" in result.stderr
    assert "tallystick up" in result.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("budgets", "set", "a"), "Missing argument"),
        (("budgets", "set", "a", "amount"), "'amount' isn't FIELD=VALUE"),
        (("budgets", "set", "a", "=1"), "'=1' isn't FIELD=VALUE"),
        (("budgets", "set", "a", "notify=[team"), "not valid YAML"),
        (("alerts", "silence", "a", "--why", "x"), "--for"),
        (("alerts", "silence", "a", "--why", "x", "--for", "soon"), "'soon' is no length of time: write 30m, 2h, 3d or 1w"),
        (("alerts", "silence", "a", "--why", "x", "--for", "0h"), "no length of time"),
        (("alerts", "unsilence", "x"), "not a valid integer"),
        (("budgets", "validate", "/no/such/file"), "does not exist"),
    ],
)
def test_wrong_usage(run: Run, args: tuple[str, ...], told: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())


# With a server


def test_list_and_show(ask: Run) -> None:
    listed = ask("budgets", "list").stdout
    assert "acme" in listed
    assert "0.00042 USD" in listed
    assert "105 %" in listed
    assert "planner" in listed
    found = {one["name"]: one for one in rows(ask("budgets", "list", "--json"))}
    assert found["acme"]["values"][0]["percent"] == "105"
    shown = ask("budgets", "show", "acme").stdout
    for part in ("scope", "customer: acme", "file", "1, by configuration at", "0.00042 USD", "105 %"):
        assert part in shown
    assert rows(ask("budgets", "show", "acme", "--json"))[0]["definition"]["amount"] == "0.0004"


def test_set_changes_fields_one_by_one(ask: Run, fail: Callable[..., str]) -> None:
    made = [
        "amount=10",
        "period=month",
        "scope.customer=acme",
        "notify=team",
        'quiet_hours={from: 22:00, until: "07:00"}',
        "owners=[ana]",
    ]
    assert ask("budgets", "set", "own", *made).stdout == "own is kept; the next evaluation judges by it\n"
    assert ask("budgets", "set", "own", "amount=10").stdout == "own is so already\n"
    ask("alerts", "evaluate")
    ask("budgets", "set", "own", "amount=20", "scope.tag:app=x.y", "thresholds=[50, forecast 100]", "owners=", "quiet_hours=")
    ask("alerts", "evaluate")
    (shown,) = rows(ask("budgets", "show", "own", "--json"))
    definition = shown["definition"]
    assert (shown["source"], shown["revision"], shown["author"]) == ("api", 2, "ana")
    assert (definition["amount"], definition["period"], definition["notify"]) == ("20", "month", {"default": ["team"]})
    assert definition["scope"] == {"customer": ["acme"], "tag:app": ["x.y"]}
    assert definition["thresholds"] == ["50", "forecast:100"]
    assert (definition["owners"], definition["quiet_hours"]) == ([], None)

    assert ask("budgets", "delete", "own").stdout.startswith("own is deleted")
    history = ask("budgets", "history", "own").stdout
    assert "amount: 10 → 20" in history
    assert history.count("ana") >= 5
    assert "deleted" in history.strip().splitlines()[-1]
    (found,) = rows(ask("budgets", "history", "own", "--json"))
    assert [one["revision"] for one in found["revisions"]] == [1, 2]
    # It begins anew, not from what was deleted.
    assert "period: is missing" in fail("budgets", "set", "own", "amount=10")


def test_what_the_server_refuses(fail: Callable[..., str]) -> None:
    assert "docs/budgets.md has every field" in fail("budgets", "set", "own", "amount=0", "period=month", "notify=[]")
    assert "Change the file" in fail("budgets", "set", "acme", "amount=7")
    assert "Change the file" in fail("budgets", "delete", "acme")
    assert "did you mean `acme`?" in fail("budgets", "show", "acm")
    assert "No budget" in fail("budgets", "history", "nobody")
    assert "did you mean `team`?" in fail("alerts", "test", "tem")
    assert "did you mean `acme`?" in fail("alerts", "silence", "acm", "--for", "2h", "--why", "x")
    assert "No silence" in fail("alerts", "unsilence", "999")
    assert "Nothing was said" in fail("alerts", "ack", "unpriced", "--why", "x")


def test_alerts(ask: Run, fail: Callable[..., str], slack: SlackServer) -> None:
    assert ask("alerts", "silence", "each-agent", "--value", "crawler", "--for", "2h", "--why", "load test").stdout.startswith(
        "silence 1: "
    )
    silences = ask("alerts", "silences").stdout
    for part in ("each-agent", "crawler", "ana", "load test"):
        assert part in silences
    assert ask("alerts", "unsilence", "1").stdout == "silence 1 is over\n"
    assert rows(ask("alerts", "silences", "--json")) == []
    assert [one["ended_by"] for one in rows(ask("alerts", "silences", "--all", "--json"))] == ["ana"]

    evaluated = ask("alerts", "evaluate").stdout
    assert "judged in" in evaluated
    said = rows(ask("alerts", "list", "--json"))
    assert [one["message"]["title"] for one in said if one["subject"] == "acme"] == ["acme: 105 % of 0.0004 USD used this month"]
    assert "ana has it in hand" in ask("alerts", "ack", "acme", "--why", "raising it", "--for", "1d").stdout
    assert "50, 80, 100" in ask("budgets", "list").stdout
    listed = ask("alerts", "list", "--subject", "acme").stdout
    assert "105 %" in listed
    assert "team" in listed
    assert listed.strip().splitlines()[-1].rstrip().endswith("ana")

    assert ask("alerts", "test", "team").stdout == "team: sent\n"
    assert "ana tries this channel" in slack.messages[-1].show()
    slack.fail(410, body="channel_is_archived")
    assert "team: not sent: " in fail("alerts", "test", "team")
    status = ask("alerts", "status").stdout
    assert "2 budgets, 1 rules, every 3600 s; last evaluated " in status
    assert "slack" in status
    assert rows(ask("alerts", "status", "--json"))[0]["deliveries"]["sent"] >= 1


def test_no_secret_is_printed(ask: Run, slack: SlackServer) -> None:
    commands = (("budgets", "list"), ("alerts", "list"), ("alerts", "status"), ("doctor",))
    shown = [ask(*command, *form).output for command in commands for form in ((), ("--json",))]
    shown.append(ask("budgets", "show", "acme", "--json").output)
    assert all("localsecret" not in one and slack.url not in one for one in shown)


def test_the_doctor_looks_at_alerts(ask: Run, tmp_path: Path, slack: SlackServer, run: Run) -> None:
    checks = {one["what"]: one for one in rows(ask("doctor", "--json"))}
    assert checks["alerts"]["state"] == "ok"
    assert "last evaluated" in checks["alerts"]["found"]
    assert "configuration" not in checks

    broken = tmp_path / "budgets.yaml"
    broken.write_text(FILE.replace("amount: 5", "amount: 0"))
    env = {
        "TALLYSTICK_CONFIG": str(broken), "SLACK_URL": slack.webhook_url.replace("localsecret", "gone"),
        "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1", "TALLYSTICK_ALERTS_EVERY_S": "3600",
    }  # fmt: skip
    with Server(tmp_path / "data", env=env) as server:
        server.post_all(
            [
                request(
                    span("a", attributes={"tallystick.customer": "acme"}), span("b", attributes={"tallystick.customer": "acme"})
                )
            ]
        )
        done = rows(run("alerts", "evaluate", "--url", server.url, "--json"))[0]
        assert len(done["said"]) == 1
        for _ in range(500):
            checks = {one["what"]: one for one in rows(run("doctor", "--url", server.url, "--json"))}
            if "channel team" in checks:
                break
        assert checks["channel team"]["state"] == "warn"
        assert "1 messages refused" in checks["channel team"]["found"]
        assert checks["configuration"]["found"] == "left out: budgets[1].amount: must be greater than 0"
        key = server.key("acme")
        assert "alerts" not in {
            one["what"] for one in rows(run("doctor", "--url", server.url, "--json", env={"TALLYSTICK_KEY": key}))
        }
