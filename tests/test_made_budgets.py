"""Budgets made by API beside a configuration file, and channels that are tried while it is loaded."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tallystick.alerts.channels.open import channel_for
from tallystick.alerts.config import Config, load_config, made_budget, with_budgets
from tallystick.alerts.config_channels import ChannelConfig

FILE = """
prices:
  exchange_rates: {EUR: 1.1}
channels:
  team: {type: stdout}
  broken: {type: slack}
budgets:
  - {name: acme, amount: 100, period: month, scope: {customer: acme}, notify: [team]}
  - {name: wrong, amount: 0, period: month, notify: [team]}
rules:
  - {name: quiet, type: no_data, notify: [team]}
"""
GOOD: dict[str, Any] = {"amount": 5, "period": "day", "notify": ["team"]}


def opened(name: str, config: ChannelConfig) -> None:
    channel_for(name, config, allow_private=False)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(FILE, {})


def told(config: Config, name: str, body: dict[str, Any]) -> list[str]:
    return [str(problem).removeprefix(f"budget {name} made by API: ") for problem in made_budget(config, name, body)[1]]


def test_it_is_a_budget_as_those_of_the_file_are(config: Config) -> None:
    budget, problems = made_budget(config, "globex", GOOD | {"scope": {"customer": "globex"}, "thresholds": [50, "forecast 100"]})
    assert problems == ()
    of_file = load_config(
        "channels: {team: {type: stdout}}\n"
        "budgets: [{name: globex, amount: 5, period: day, scope: {customer: globex}, thresholds: [50, forecast 100], notify: [team]}]",
        {},
    )
    assert (budget,) == of_file.budgets


def test_what_is_answered_can_be_sent_back(config: Config) -> None:
    body = GOOD | {
        "quiet_hours": {"from": "22:00", "until": "07:00", "except": [100]},
        "period": {"every": "2 weeks", "start": "2026-01-05"},
    }
    budget, _ = made_budget(config, "a", body)
    assert budget is not None
    answered = json.loads(budget.model_dump_json(by_alias=True))
    assert made_budget(config, "a", answered) == (budget, ())


def test_the_files_exchange_rates_hold(config: Config) -> None:
    budget, problems = made_budget(config, "euro", GOOD | {"currency": "EUR"})
    assert problems == ()
    assert budget is not None
    assert budget.limit == Decimal("5.5")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amount": 0}, "amount: must be greater than 0"),
        ({"amount": True}, "amount: write a number such as 100 or 0.5"),
        ({"ammount": 1}, "ammount: unknown field; did you mean `amount`?"),
        ({"notify": ["tem"]}, "notify[0]: no such channel; did you mean `team`?"),
        ({"notify": {"default": ["team"], "100": ["broken"]}}, "notify.100[0]: the channel in line 6 can't be used"),
        ({"notify": ["broken"]}, "notify: is left out until a channel of it can be used: nobody would hear of it"),
        ({"scope": {"custumer": "a"}}, "scope.custumer: no such dimension; did you mean `customer`?"),
        ({"timezone": "Europe/Berlni"}, "timezone: no such time zone; did you mean `Europe/Berlin`?"),
        ({"scope": {"a": [[[1]]] * 3}}, "scope.a: no such dimension"),
        ({"currency": "CHF"}, "exchange_rate: is missing: add `exchange_rate`, the price of one CHF in USD"),
        ({"amount": "${HOME}"}, "amount: write a number such as 100 or 0.5"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(config: Config, change: dict[str, Any], problem: str) -> None:
    assert any(line.startswith(problem) for line in told(config, "globex", GOOD | change)), told(config, "globex", GOOD | change)


def test_depth_has_an_end(config: Config) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert told(config, "a", GOOD | {"amount": deep}) == ["is nested too deeply"]


def test_halves_of_characters_are_no_text(config: Config) -> None:
    for change in ({"scope": {"customer": "a\ud800"}}, {"scope": {"tag:\udfff": "a"}}):
        assert told(config, "a", GOOD | change) == ["has halves of characters: send UTF-8"]


@pytest.mark.parametrize(("name", "line"), [("acme", 8), ("wrong", 9), ("quiet", 11)])
def test_a_name_of_the_file_is_the_files(config: Config, name: str, line: int) -> None:
    """Also where the file's one can't be used: it would change hands when the file is corrected."""
    added = with_budgets(config, {name: json.dumps(GOOD)})
    assert added.budgets == config.budgets
    (problem,) = added.problems[len(config.problems) :]
    assert (
        str(problem) == f"budget {name} made by API: name: is taken by the one in line {line}: give each budget and rule its own"
    )


def test_one_that_cant_be_used_keeps_out_none_but_itself(config: Config) -> None:
    made = {"bad": json.dumps(GOOD | {"notify": ["gone"]}), "good": json.dumps(GOOD | {"notify": ["team", "broken"]})}
    added = with_budgets(config, made)
    assert [budget.name for budget in added.budgets] == ["acme", "good"]
    assert added.budgets[-1].notify == {"default": ("team",)}
    assert [(problem.file, problem.field) for problem in added.problems[len(config.problems) :]] == [
        ("budget bad made by API", "notify[0]"), ("budget good made by API", "notify[1]"),
    ]  # fmt: skip
    assert replace(added, budgets=(), problems=()) == replace(config, budgets=(), problems=())


def test_the_same_spend_twice_is_a_warning(config: Config) -> None:
    same = json.dumps({"amount": 7, "period": "month", "scope": {"customer": "acme"}, "notify": ["team"]})
    added = with_budgets(config, {"again": same})
    assert [budget.name for budget in added.budgets] == ["acme", "again"]
    assert [str(one) for one in added.warnings] == [
        "budget again made by API: counts the same spend over the same periods as the budget acme"
    ]


# Channels that are tried


def test_a_channel_that_cant_be_opened_is_told_with_its_line() -> None:
    source = FILE.replace("broken: {type: slack}", 'broken: {type: webhook, url: "https://10.0.0.7/s3cret"}')
    config = load_config(source.replace("acme}, notify: [team]", "acme}, notify: [broken]"), {}, open_channel=opened)
    private, unheard, *_ = map(str, config.problems)
    assert private.startswith("configuration:6:32: channels.broken.url: ")
    assert "s3cret" not in f"{config!r}{private}"
    assert unheard.startswith("configuration:8:")
    assert ": budgets[0].notify" in unheard
    assert list(config.channels) == ["team"]
    assert config.budgets == ()
