"""Budgets and alerts over HTTP: the real server, calls that it priced itself, a Slack that behaves as Slack does."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from otlp import request, span
from server import Server

from tallystick.client import Client, Refused
from tallystick.testing import SlackServer

SECRETS = ("localsecret", "xoxb-", "geheim", "s3cret")
FILE = """
channels:
  team: {type: slack, url: "${SLACK_URL}"}
  hooks: {type: webhook, url: "https://hooks.example/s3cret", secret: geheim}
  broken: {type: webhook, url: "ftp://hooks.example/s3cret"}
budgets:
  - {name: of-the-file, amount: 1000, period: month, notify: [team]}
  - {name: each-agent, amount: 0.001, period: month, each: agent, thresholds: [50, forecast 100], notify: [team]}
  - {name: left-out, amount: 5, period: month, notify: [broken]}
rules:
  - {name: unpriced, type: unpriced, notify: [team]}
"""
GOOD: dict[str, Any] = {"amount": 0.0004, "period": "month", "notify": ["team"]}
NEVER = {"TALLYSTICK_ALERTS_EVERY_S": "3600", "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1"}


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackServer]:
    with SlackServer(least_s=0) as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configuration") / "budgets.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def server(file: Path, slack: SlackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It evaluates when it starts, and when it is asked to."""
    env = NEVER | {"TALLYSTICK_CONFIG": str(file), "SLACK_URL": slack.webhook_url}
    with Server(tmp_path_factory.mktemp("server") / "data", env=env) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def spend(server: Server) -> Callable[..., None]:
    """Calls of 0.00021 USD each, for a customer, now."""

    def send(customer: str, calls: int = 1, **attributes: Any) -> None:
        given = {"tallystick.customer": customer} | {f"tallystick.{name}": value for name, value in attributes.items()}
        number = time.time_ns()
        server.post_all([request(*(span(f"{customer}-{number}-{one}", attributes=given) for one in range(calls)))])

    return send


def until(found: Callable[[], Any]) -> Any:
    """What it finds, once it does."""
    deadline = time.monotonic() + 20
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result


def of(api: Client, subject: str) -> list[dict[str, Any]]:
    return list(api.alerts(500, subject=subject)["alerts"])


# Budgets


def test_a_budget_of_the_file_and_how_it_stands(api: Client, spend: Callable[..., None]) -> None:
    spend("acme", 2, agent="planner")
    spend("globex", 1, agent="crawler")
    found = api.budgets()
    budgets = {one["name"]: one for one in found["budgets"]}
    whole, each = budgets["of-the-file"], budgets["each-agent"]
    assert (whole["source"], whole["revision"], whole["author"], whole["limit"]) == ("file", 1, "configuration", "1000")
    (only,) = whole["values"]
    (total,) = api.sql("SELECT sum(cost_usd) AS cost FROM charges").dicts()
    assert Decimal(only["spent"]) == total["cost"] >= Decimal("0.00063")
    assert (only["value"], only["priced_share"], only["said"]) == ("", "1", [])
    values = {one["value"]: one for one in each["values"]}
    assert list(values)[:2] == ["planner", "crawler"], "the dearest first"
    assert (values["planner"]["spent"], values["planner"]["percent"]) == ("0.000420000000", "42")
    assert each["values_total"] == len(values)
    assert each["period"]["label"] == f"{datetime.now(UTC):%Y-%m}"
    assert each["definition"]["thresholds"] == ["50", "forecast:100"]
    fields = [one["field"] for one in found["problems"]]
    assert fields == ["channels.broken.url", "budgets[2].notify", "budgets[2].notify[0]"]
    assert all(one["line"] and one["column"] for one in found["problems"])


def test_a_percent_is_rounded_down(api: Client, spend: Callable[..., None]) -> None:
    spend("thirds", 2)
    api.put_budget("thirds", GOOD | {"amount": 0.00063, "scope": {"customer": "thirds"}})
    assert api.budget("thirds")["values"][0]["percent"] == "66.6666"
    api.delete_budget("thirds")


def test_values_are_cut_off(api: Client, spend: Callable[..., None]) -> None:
    spend("acme", 1, agent="a")
    spend("acme", 1, agent="b")
    each = api.budget("each-agent", values=1)
    assert len(each["values"]) == 1
    assert each["values_total"] >= 2


def test_the_life_of_a_budget_made_by_api(api: Client, spend: Callable[..., None]) -> None:
    spend("life", 3)
    definition = GOOD | {"amount": 0.001, "scope": {"customer": "life"}}
    assert api.put_budget("life", definition, who="ana")["changed"]
    assert not api.put_budget("life", definition, who="bo")["changed"]
    new = api.budget("life")
    assert (new["source"], new["revision"], new["limit"]) == ("api", None, "0.001")
    assert new["values"][0]["percent"] == "63"
    assert {one["title"] for one in api.evaluate_alerts()["said"] if one["subject"] == "life"} == {
        "life: 63 % of 0.001 USD used this month"
    }
    judged = api.budget("life")
    assert (judged["revision"], judged["author"]) == (1, "ana")
    assert [one["threshold"] for one in judged["values"][0]["said"]] == ["actual:50"]

    # Lowering it is judged at once; an edit of who owns it makes no revision.
    api.put_budget("life", definition | {"amount": 0.0006, "owners": ["ana"]}, who="bo")
    assert [one["title"] for one in api.evaluate_alerts()["said"]] == ["life: 105 % of 0.0006 USD used this month"]
    assert [one["threshold"] for one in api.budget("life")["values"][0]["said"]] == ["actual:50", "actual:80", "actual:100"]
    api.put_budget("life", definition | {"amount": 0.0006, "owners": ["cy"]}, who="cy")
    assert api.evaluate_alerts()["said"] == []
    api.delete_budget("life", who="di")
    with pytest.raises(Refused) as gone:
        api.budget("life")
    assert (gone.value.status, gone.value.code) == (404, "no_such_budget")
    with pytest.raises(Refused, match="No budget"):
        api.delete_budget("life")
    assert "life" not in [one["name"] for one in api.budgets()["budgets"]]

    history = api.budget_history("life")
    assert [(one["revision"], one["author"], one["definition"]["amount"]) for one in history["revisions"]] == [
        (1, "ana", "0.001"), (2, "bo", "0.0006"),
    ]  # fmt: skip
    assert [(one["author"], (one["definition"] or {}).get("owners")) for one in history["changes"]] == [
        ("ana", None), ("bo", ["ana"]), ("cy", ["cy"]), ("di", None),
    ]  # fmt: skip
    assert history["changes"][-1]["definition"] is None


def test_what_is_answered_can_be_sent_back(api: Client) -> None:
    full = GOOD | {
        "amount": 7, "currency": "EUR", "exchange_rate": "1.1", "period": {"every": "2 weeks", "start": "2026-01-05"}, "timezone": "Europe/Berlin",
        "scope": {"customer": ["acme", "globex"], "tag:app": ""}, "each": "agent", "thresholds": [50, "forecast 100"],
        "notify": {"default": "team", "50": ["hooks"]}, "quiet_hours": {"from": "22:00", "until": "07:00", "except": 50}, "owners": ["ana"],
    }  # fmt: skip
    api.put_budget("round", full)
    once = api.budget("round")["definition"]
    api.put_budget("round", once)
    assert api.budget("round")["definition"] == once
    api.delete_budget("round")


@pytest.mark.parametrize("name", ["a/b", "a b", "übung", "50%", "a?b#c", "history", "validate", "a/history/b"])
def test_names_are_texts(api: Client, name: str) -> None:
    api.put_budget(name, GOOD)
    assert api.budget(name)["name"] == name
    assert len(api.budget_history(name)["changes"]) == 1
    api.delete_budget(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amount": 0}, "amount: must be greater than 0"),
        ({"amount": "NaN"}, "amount: write a number such as 100 or 0.5"),
        ({"period": "fortnight", "timezone": "Mars"}, "period: write hour, day"),
        ({"timezone": "Europe/Berlni"}, "timezone: no such time zone; did you mean `Europe/Berlin`?"),
        ({"scope": {"custumer": "a"}}, "did you mean `customer`?"),
        ({"thresholds": [80, 50]}, "thresholds: must ascend, each once: [50, 80]"),
        ({"notify": ["tea"]}, "notify[0]: no such channel; did you mean `team`?"),
        ({"notify": ["broken"]}, "can't be used"),
        ({"notify": ["team", "broken"]}, "notify[1]: the channel in line 5 can't be used"),
        ({"name": "other"}, "name: isn't the name in the address"),
        ({"colour": "red"}, "colour: unknown field"),
    ],
)
def test_a_wrong_definition_changes_nothing(api: Client, change: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as wrong:
        api.put_budget("wrong", GOOD | change)
    assert (wrong.value.status, wrong.value.code) == (422, "bad_budget")
    assert told in wrong.value.message
    assert wrong.value.hint == "docs/budgets.md has every field."
    with pytest.raises(Refused, match="No budget"):
        api.budget_history("wrong")


@pytest.mark.parametrize("name", ["of-the-file", "left-out", "unpriced"])
def test_names_of_the_file_are_read_only(api: Client, name: str) -> None:
    for change in (lambda: api.put_budget(name, GOOD), lambda: api.delete_budget(name)):
        with pytest.raises(Refused) as refused:
            change()
        assert (refused.value.status, refused.value.code) == (409, "budget_of_the_file")
        assert "Change the file" in refused.value.hint


def test_a_budget_that_is_left_out_says_so(api: Client) -> None:
    with pytest.raises(Refused) as refused:
        api.budget("left-out")
    assert "left out" in refused.value.message
    assert "problems" in refused.value.hint
    with pytest.raises(Refused) as unknown:
        api.budget("of-the-fil")
    assert unknown.value.hint == "did you mean `of-the-file`?"


def test_the_file_takes_a_name_over(api: Client, file: Path, spend: Callable[..., None]) -> None:
    api.put_budget("taken", GOOD | {"amount": 3})
    file.write_text(FILE.replace("rules:", "  - {name: taken, amount: 4, period: day, notify: [team]}\nrules:"))
    try:
        until(lambda: api.budget("taken")["source"] == "file")
        assert api.budget("taken")["limit"] == "4"
        (problem,) = [one for one in api.budgets()["problems"] if "taken" in one["file"]]
        assert (problem["line"], problem["field"]) == (None, "name")
        assert problem["text"].startswith("is taken by the one in line 10")
        api.delete_budget("taken")
        assert all("taken" not in one["file"] for one in api.budgets()["problems"])
    finally:
        file.write_text(FILE)
    assert until(lambda: "taken" not in [one["name"] for one in api.budgets()["budgets"]])


def test_a_file_that_cant_be_read_changes_nothing_but_is_told(api: Client, file: Path) -> None:
    file.write_text("budgets: [")
    try:
        (problem,) = until(lambda: [one for one in api.budgets()["problems"] if "YAML" in one["text"]])
        assert problem["line"] == 1
        assert "of-the-file" in [one["name"] for one in api.budgets()["budgets"]]
        # What is made by API needs no file.
        api.put_budget("meanwhile", GOOD)
        assert api.budget("meanwhile")["source"] == "api"
        api.delete_budget("meanwhile")
    finally:
        file.write_text(FILE)
    until(lambda: not [one for one in api.budgets()["problems"] if "YAML" in one["text"]])


def test_validation(api: Client) -> None:
    found = api.validate_budgets(FILE.replace("amount: 1000", "amount: -1").replace("of-the-file", '"${SLACK_URL}"'))
    assert (found["channels"], found["budgets"], found["rules"]) == (2, 1, 1)
    told = [(one["line"], one["field"]) for one in found["problems"]]
    assert {(5, "channels.broken.url"), (7, "budgets[0].amount"), (9, "budgets[2].notify")} <= set(told)
    assert api.validate_budgets("") == {"channels": 0, "budgets": 0, "rules": 0, "problems": [], "warnings": []}
    twice = "budgets: [{name: a, amount: 1, period: day, notify: []}, {name: b, amount: 2, period: day, notify: []}]"
    assert [one["line"] for one in api.validate_budgets(twice)["warnings"]] == [1]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"\xff\xfe", 200, "is no text in UTF-8"),
        (b"a: [", 200, "not valid YAML"),
        (b"- a", 200, "write a mapping with"),
        (b"budgets: ${", 200, "write a list"),
        (b"x" * ((1 << 20) + 1), 413, "more than 1,048,576 bytes"),
    ],
)
def test_what_is_no_configuration(server: Server, body: bytes, status: int, told: str) -> None:
    answer = server.http.post("/v1/budgets/validate", content=body)
    assert answer.status_code == status
    assert told in answer.text


def test_validation_opens_no_file_that_it_is_told_of(api: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.j2"
    secret.write_text("{{ s3cret }}")
    text = f"channels: {{a: {{type: stdout, template: {secret}}}}}"
    assert api.validate_budgets(text)["problems"] == []
    assert "s3cret" not in json.dumps(api.validate_budgets(text.replace("secret.j2", "gone.j2")))


# Alerts


def test_what_was_said_and_what_became_of_it(api: Client, slack: SlackServer, spend: Callable[..., None]) -> None:
    spend("said", 2)
    api.put_budget(
        "said", GOOD | {"scope": {"customer": "said"}, "notify": {"default": ["team", "hooks"]}, "thresholds": [50, 100]}
    )
    api.evaluate_alerts()
    (alert,) = until(lambda: [one for one in of(api, "said") if one["deliveries"][0]["state"] == "sent"])
    message = alert["message"]
    assert (message["kind"], message["key"]["mark"], message["amount"]) == ("threshold", "actual:100", "0.0004")
    assert Decimal(message["spent"]) == Decimal("0.00042")
    assert [one["channel"] for one in alert["deliveries"]] == ["team", "hooks"]
    assert [one.title for one in slack.messages if one.title.startswith("said:")] == [message["title"]]
    api.delete_budget("said")


def test_a_channel_that_the_file_gets_while_the_server_runs(api: Client, file: Path, spend: Callable[..., None]) -> None:
    spend("late", 2)
    file.write_text(FILE.replace("budgets:", '  late: {type: slack, url: "${SLACK_URL}"}\nbudgets:'))
    try:
        until(lambda: "late" in [one["name"] for one in api.alerts_status()["channels"]])
        api.put_budget("late", GOOD | {"scope": {"customer": "late"}, "notify": "late"})
        api.evaluate_alerts()
        until(lambda: [one for one in of(api, "late") if one["deliveries"][0]["state"] == "sent"])
        api.delete_budget("late")
    finally:
        file.write_text(FILE)


def test_pages_of_what_was_said(api: Client, spend: Callable[..., None]) -> None:
    spend("pages", 1)
    for name in ("page-1", "page-2", "page-3"):
        api.put_budget(name, GOOD | {"scope": {"customer": "pages"}, "notify": []})
    api.evaluate_alerts()
    first = api.alerts(2)
    second = api.alerts(2, before=first["next"])
    names = [one["subject"] for one in (*first["alerts"], *second["alerts"])]
    assert names[:3] == ["page-3", "page-2", "page-1"]
    assert api.alerts(500)["next"] is None
    for name in ("page-1", "page-2", "page-3"):
        api.delete_budget(name)


def test_the_status(api: Client, server: Server) -> None:
    status = api.alerts_status()
    scheduler = status["scheduler"]
    assert (scheduler["on"], scheduler["every_s"], scheduler["leading"], scheduler["failures"]) == (True, 3600, True, 0)
    assert scheduler["last_tick"]["duration_s"] > 0
    assert scheduler["lag_s"] == 0
    assert (status["ledger_error"], status["rules"]) == (None, 1)
    channels = {one["name"]: one for one in status["channels"]}
    assert [(one, channels[one]["type"], channels[one]["usable"]) for one in ("team", "hooks", "broken")] == [
        ("team", "slack", True), ("hooks", "webhook", True), ("broken", None, False),
    ]  # fmt: skip
    assert status["deliveries"]["sent"] == sum(one["sent"] for one in channels.values())
    assert "channels.broken.url" in [one["field"] for one in status["problems"]]


def test_a_channel_is_tried(api: Client, slack: SlackServer) -> None:
    assert api.test_alerts("team", who="ana") == {"sent": True, "reason": None}
    posted = slack.messages[-1]
    assert posted.title == "Test: acme: 80 % of 100.00 USD used this month"
    assert "ana tries this channel. Nothing has happened" in posted.show()
    slack.fail(404, body="no_service")
    refused = api.test_alerts("team")
    assert not refused["sent"]
    assert "no_service" in refused["reason"]
    slack.fail(503)
    assert "503" in api.test_alerts("team")["reason"]


@pytest.mark.parametrize(
    ("channel", "status", "hint"),
    [("tem", 404, "did you mean `team`?"), ("broken", 409, "channels.broken.url: write an address that begins with https://")],
)
def test_a_channel_that_isnt_there(api: Client, channel: str, status: int, hint: str) -> None:
    with pytest.raises(Refused) as refused:
        api.test_alerts(channel)
    assert (refused.value.status, refused.value.hint) == (status, hint)


def test_silence(api: Client, slack: SlackServer, spend: Callable[..., None]) -> None:
    spend("quiet", 2)
    api.put_budget("quiet", GOOD | {"scope": {"customer": "quiet"}})
    made = api.silence("quiet", timedelta(hours=2), "load test", who="ana")
    assert datetime.fromisoformat(made["until"]) - datetime.fromisoformat(made["at"]) == timedelta(hours=2)
    assert (made["who"], made["why"], made["value"]) == ("ana", "load test", None)
    assert [one["id"] for one in api.silences()] == [made["id"]]
    api.evaluate_alerts()
    (alert,) = of(api, "quiet")
    (delivery,) = alert["deliveries"]
    assert delivery["state"] == "silenced"
    assert delivery["error"].startswith("silenced by ana until")
    api.unsilence(made["id"], who="bo")
    assert api.silences() == []
    assert api.silences(over=True)[0]["ended_by"] == "bo"
    with pytest.raises(Refused, match="No silence"):
        api.unsilence(made["id"])
    api.evaluate_alerts()
    assert [one.title for one in slack.messages if one.title.startswith("quiet")] == [], "it counts as said"
    api.delete_budget("quiet")


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"for": "0h"}, 422, "write a duration such as 30m"),
        ({"for": "999999w"}, 422, "400 days"),
        ({"until": "2020-01-01T00:00:00Z"}, 422, "must lie ahead"),
        ({"until": "2020-01-01T00:00:00"}, 422, "timezone"),
        ({}, 422, "a silence has an end"),
        ({"for": "1h", "until": "2099-01-01T00:00:00Z"}, 422, "not both"),
        ({"for": "1h", "why": ""}, 422, "why"),
        ({"for": "1h", "subject": "each-agen"}, 404, "did you mean `each-agent`?"),
        ({"for": "1h", "colour": "red"}, 422, "colour"),
    ],
)
def test_a_wrong_silence(server: Server, body: dict[str, str], status: int, told: str) -> None:
    answer = server.http.post("/v1/alerts/silences", json={"subject": "each-agent", "why": "x"} | body)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert told in answer.text


def test_acknowledgement(api: Client, spend: Callable[..., None]) -> None:
    with pytest.raises(Refused, match="Nothing was said"):
        api.acknowledge("of-the-file", "mine")
    spend("ack", 1, agent="a1")
    spend("ack", 1, agent="a2")
    api.put_budget("ack", GOOD | {"scope": {"customer": "ack"}, "each": "agent", "notify": []})
    api.evaluate_alerts()
    made = api.acknowledge("ack", "on it", value="a2", until=datetime.now(UTC) + timedelta(hours=1), who="ana")
    assert (made["who"], made["why"], made["period_start"]) == ("ana", "on it", f"{datetime.now(UTC):%Y-%m}-01T00:00:00Z")
    shown = {one["value"]: one["acknowledged"] for one in of(api, "ack")}
    assert shown == {"a1": None, "a2": made}
    api.delete_budget("ack")


# Who may, and what is never told


@pytest.fixture(scope="module")
def answers(server: Server) -> list[tuple[str, str, httpx.Response]]:
    """What every route answers to somebody with a tenant's key."""
    headers = {"authorization": f"Bearer {server.key('acme')}"}
    paths = server.http.get("/openapi.json").json()["paths"]
    asked = [
        (method.upper(), path.replace("{name}", "of-the-file").replace("{id}", "1"))
        for path, methods in paths.items()
        if path.startswith(("/v1/budgets", "/v1/alerts"))
        for method in methods
    ]
    assert len(asked) == 14
    body = {"channel": "team", "subject": "of-the-file", "why": "x", "for": "1h"}
    return [(method, path, server.http.request(method, path, headers=headers, json=body)) for method, path in asked]


def test_a_tenants_key_may_nothing(answers: list[tuple[str, str, httpx.Response]]) -> None:
    for method, path, answer in answers:
        assert answer.status_code == 403, (method, path)
        assert answer.json()["error"]["hint"].startswith("Ask with an operator's key; ")


def test_an_operators_key_is_remembered(server: Server) -> None:
    key = server.key("ops", operator=True)
    with Client(server.url, key) as api:
        api.put_budget("keyed", GOOD)
        api.put_budget("keyed", GOOD | {"amount": 2}, who="ana")
        of_key = f"key {key.split('_')[1]} of ops"
        assert [one["author"] for one in api.budget_history("keyed")["changes"]] == [of_key, f"ana ({of_key})"]
        api.delete_budget("keyed")


def test_an_unknown_key_may_nothing(server: Server) -> None:
    with Client(server.url, "ts_00000000_nobodys") as api, pytest.raises(Refused) as refused:
        api.budgets()
    assert refused.value.status == 401


def test_no_secret_is_in_any_answer(server: Server, api: Client, slack: SlackServer) -> None:
    slack.fail(403, body="action_prohibited")
    shown = [api.test_alerts("team"), api.test_alerts("hooks"), api.budgets(), api.budget("each-agent"), api.alerts(500)]
    shown += [api.alerts_status(), api.validate_budgets(FILE), api.validate_budgets(FILE.replace("channels:", "channel:"))]
    told = json.dumps(shown) + server.http.get("/openapi.json").text + server.log()
    for secret in (*SECRETS, slack.url):
        assert secret not in told.replace("xoxb-…", "")


def test_every_route_is_described(server: Server) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if path.startswith(("/v1/budgets", "/v1/alerts")):
            for route in methods.values():
                assert route["summary"]
                assert route["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
                assert "403" in route["responses"]


def test_off(tmp_path: Path) -> None:
    with Server(tmp_path / "off", env={"TALLYSTICK_ALERTS_EVERY_S": "0"}) as server, Client(server.url) as api:
        status = api.alerts_status()
        assert (status["scheduler"]["on"], status["scheduler"]["last_tick"], status["channels"]) == (False, None, [])
        with pytest.raises(Refused) as off:
            api.evaluate_alerts()
        assert (off.value.status, off.value.code) == (409, "alerts_off")


def test_replicas_agree_and_a_ledger_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    """Two servers on one alert ledger: what is made at one is judged by the other."""
    from postgres import postgres

    database = postgres()
    url = database.fresh()
    env = NEVER | {"TALLYSTICK_ALERTS_URL": url}
    with (
        Server(tmp_path / "a", env=env) as first,
        Server(tmp_path / "b", env=env) as second,
        Client(first.url) as one,
        Client(second.url) as other,
    ):
        until(lambda: one.alerts_status()["scheduler"]["leading"])
        other.put_budget("shared", GOOD | {"notify": []}, who="ana")
        assert not other.evaluate_alerts()["evaluated"]
        assert one.evaluate_alerts()["evaluated"]
        assert (one.budget("shared")["source"], other.budget("shared")["revision"]) == ("api", 1)
        one.delete_budget("shared", who="bo")
        assert [change["author"] for change in other.budget_history("shared")["changes"]] == ["ana", "bo"]
        with pytest.raises(Refused):
            other.budget("shared")
        database.stop()
        try:
            with pytest.raises(Refused) as down:
                one.put_budget("shared", GOOD)
            assert (down.value.status, down.value.code) == (503, "unavailable")
            status = one.alerts_status()
            assert "can't be used now" in status["ledger_error"]
            assert status["channels"] == []
        finally:
            database.start()
        assert one.budgets()["budgets"] == []
