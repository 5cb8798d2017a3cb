"""The configuration of budgets, channels and rules: what works, what is said about what doesn't, and that no secret is."""

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from tallystick.alerts.config import Config, load_config
from tallystick.alerts.config_budgets import Budget, fingerprint
from tallystick.alerts.config_channels import (
    PAGERDUTY_EVENTS,
    EmailChannel,
    PagerDutyChannel,
    SlackChannel,
    StdoutChannel,
    TeamsChannel,
    WebhookChannel,
)
from tallystick.alerts.config_fields import QuietHours
from tallystick.alerts.config_rules import AnomalyRule, Figure, LatencyRule, NoDataRule
from tallystick.alerts.config_yaml import ConfigError
from tallystick.alerts.model import Basis, Measure, Threshold
from tallystick.alerts.periods import PeriodSpec, Unit
from tallystick.attribution.prices_file import PriceFileError, load_prices_file

HOOK = "https://hooks.slack.com/services/T0/B0/s3cret"

SMALLEST = """
channels:
  team: {type: slack, url: "${SLACK_WEBHOOK_URL}"}
budgets:
  - {name: acme, amount: 100, period: month, scope: {customer: acme}, notify: [team]}
  - {name: each-agent, amount: 5, period: day, each: agent, thresholds: [50, 80, 100], notify: [team]}
"""


def load(text: str, environ: Mapping[str, str] | None = None) -> Config:
    return load_config(text, environ or {})


def budget(**fields: object) -> Budget:
    return Budget.model_validate({"name": "acme", "amount": 100, "period": "month", "notify": ["team"]} | fields)


def problem_of(line: str) -> str:
    """`COLUMN FIELD: TEXT` of what is said of a line of a budget that is fine but for it; the budget beside it goes on."""
    fields = {"name": "a", "amount": "1", "period": "day", "notify": "[]"}
    fields.pop(line.partition(":")[0], None)
    lines = [*(f"{name}: {value}" for name, value in fields.items()), line]
    config = load(
        "channels: {team: {type: stdout}, ops: {type: stdout}}\n"
        "budgets:\n"
        "  - {name: good, amount: 1, period: day, notify: [team]}\n"
        "  -\n" + "".join(f"    {one}\n" for one in lines)
    )
    assert [one.name for one in config.budgets] == ["good"]
    (found,) = config.problems
    assert found.line == 4 + len(lines)
    return f"{found.column} {found.field.removeprefix('budgets[1].')}: {found.text}"


# --- what works --------------------------------------------------------------------------------------------------------------------


def test_the_smallest_file() -> None:
    config = load(SMALLEST, {"SLACK_WEBHOOK_URL": HOOK})
    assert not config.problems
    assert not config.warnings
    assert config.channels == {"team": SlackChannel(url=SecretStr(HOOK))}
    acme, agents = config.budgets
    assert acme == budget(scope={"customer": "acme"})
    assert [line for _, line in acme.lines] == [50, 80, 100]
    assert acme.channels_for("actual:50") == acme.channels_for("correction") == ("team",)
    assert (agents.each, agents.periods) == ("agent", PeriodSpec(Unit.DAY))


def test_the_same_file_has_prices(tmp_path: Path) -> None:
    path = tmp_path / "tallystick.yaml"
    path.write_text(SMALLEST + "prices:\n  models: [{model: own, per_request: 1}]\n  providers: {x: '${HERE}'}\n")
    config = load_config(path, {"SLACK_WEBHOOK_URL": HOOK})
    assert (len(config.budgets), config.problems) == (2, ())
    assert len(load_prices_file(path).models) == 1


def test_a_budget_that_is_wrong_does_not_stop_the_prices(tmp_path: Path) -> None:
    path = tmp_path / "tallystick.yaml"
    path.write_text("budgets: [{name: a, name: b}]\nprices: {models: [{model: own, per_request: 1}]}\n")
    assert len(load_prices_file(path).models) == 1
    assert load_config(path, {}).budgets == ()
    path.write_text("prices: {models: [{model: own, model: other, per_request: 1}]}\n")
    with pytest.raises(PriceFileError, match="`model` is there twice"):
        load_prices_file(path)


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "{}", "prices:\nchannels:\nbudgets:\nrules:\n", "prices: {a: 1, a: '${B}'}"]
)
def test_nothing_is_fine(text: str) -> None:
    assert load(text) == Config()


EVERYTHING = """
channels:
  slack-hook: {type: slack, url: "${HOOK}", template: mine.j2}
  slack-bot: {type: slack, token: "${TOKEN}", channel: "#costs"}
  hook: {type: webhook, url: "https://example.com/${PATH_PART}/in", secret: "whsec_${TOKEN}"}
  oncall: {type: pagerduty, routing_key: "${TOKEN}"}
  teams: {type: teams, url: "${HOOK}"}
  mail: {type: email, host: smtp.example.com, tls: tls, from: Tally <t@example.com>, to: a@example.com, username: u, password: "${TOKEN}"}
  out: {type: stdout}
budgets:
  - name: all of it
    amount: 1_000.50
    currency: EUR
    period: {every: 2 weeks, start: 2026-01-05}
    timezone: europe/berlin
    scope: {customer: [globex, acme], "tag:tier": gold, team: no, user: 007, session: ""}
    each: customer
    thresholds: [50%, 80, 100.5, forecast 100, {percent: 120, of: forecast}]
    minimum: 5
    correction_percent: 10
    notify: {default: slack-hook, 100.5: [slack-hook, oncall], forecast 100: []}
    quiet_hours: {from: 22:00, until: 7:30, except: [100.5, forecast 120]}
    owners: finance@example.com
  - {name: tokens, measure: tokens, amount: 5e6, period: hour, notify: [out]}
  - {name: weeks, measure: calls, amount: 10, period: week, week_starts: sunday, notify: []}
rules:
  - {name: odd hours, type: anomaly, figure: cache_hit_share, each: feature, sensitivity: 3.5, floor: 0, weeks: 6, notify: [out]}
  - {name: slow, type: latency, ttft_ms: 1500, percentile: 99, burn: 14.4, window: 90m, scope: {provider: openai}, notify: [out]}
  - {name: dear, type: cost_per_success, at_most: 0.25, window: 1d, minimum_calls: 50, notify: out, owners: [a, b]}
  - {name: silent, type: no_data, after: 15m, scope: {service: api}, notify: [oncall], quiet_hours: {from: 0:00, until: 6:00}}
  - {name: unknown models, type: unpriced, at_most_percent: 0, notify: [out]}
  - {name: engine, type: probe_regression, figure: throughput, engine: vllm, worse_by_percent: 10%, runs: 3, notify: [out]}
prices:
  exchange_rates: {EUR: 1.1}
"""


def test_everything(tmp_path: Path) -> None:
    path = tmp_path / "tallystick.yaml"
    path.write_text(EVERYTHING.replace("10%, runs", "10, runs").replace("europe/berlin", "Europe/Berlin"))
    (tmp_path / "mine.j2").write_text("{{ text.title }}")
    config = load_config(path, {"HOOK": HOOK, "TOKEN": "t0ken", "PATH_PART": "a"})
    assert config.problems == ()
    assert config.channels == {
        "slack-hook": SlackChannel(url=SecretStr(HOOK), template=tmp_path / "mine.j2"),
        "slack-bot": SlackChannel(token=SecretStr("t0ken"), channel="#costs"),
        "hook": WebhookChannel(url=SecretStr("https://example.com/a/in"), secret=SecretStr("whsec_t0ken")),
        "oncall": PagerDutyChannel(routing_key=SecretStr("t0ken"), url=SecretStr(PAGERDUTY_EVENTS)),
        "teams": TeamsChannel(url=SecretStr(HOOK)),
        "mail": EmailChannel(
            host="smtp.example.com",
            port=465,
            from_="Tally <t@example.com>",
            to=("a@example.com",),
            username="u",
            password=SecretStr("t0ken"),
            tls="tls",
        ),
        "out": StdoutChannel(),
    }
    whole, tokens, weeks = config.budgets
    assert whole.limit == Decimal("1000.50") * Decimal("1.1")
    assert whole.floor == Decimal("5.5")
    assert whole.periods == PeriodSpec(Unit.WEEK, "Europe/Berlin", every=2, start=date(2026, 1, 5))
    # Texts of the file are not read as YAML 1.1 reads them: false, 7, and None.
    assert whole.scope == {
        "customer": ("acme", "globex"),
        "tag:tier": ("gold",),
        "team": ("no",),
        "user": ("007",),
        "session": ("",),
    }
    assert whole.thresholds == (
        Threshold(Decimal(50)), Threshold(Decimal(80)), Threshold(Decimal("100.5")),
        Threshold(Decimal(100), Basis.FORECAST), Threshold(Decimal(120), Basis.FORECAST),
    )  # fmt: skip
    assert {one.key: whole.channels_for(one.key) for one in whole.thresholds} == {
        "actual:50": ("slack-hook",),
        "actual:80": ("slack-hook",),
        "actual:100.5": ("slack-hook", "oncall"),
        "forecast:100": (),
        "forecast:120": ("slack-hook",),
    }
    assert whole.quiet_hours is not None
    assert (whole.quiet_hours.from_, whole.quiet_hours.until) == (time(22), time(7, 30))
    assert (tokens.measure, tokens.limit) == (Measure.TOKENS, Decimal(5_000_000))
    assert weeks.periods == PeriodSpec(Unit.WEEK, week_starts=6)
    assert len(config.rules) == 6
    odd, slow, _, silent, *_ = config.rules
    assert isinstance(odd, AnomalyRule)
    assert (odd.figure, odd.floor) == (Figure.CACHE_HIT_SHARE, Decimal(0))
    assert isinstance(slow, LatencyRule)
    assert slow.window == timedelta(minutes=90)
    assert isinstance(silent, NoDataRule)
    assert silent.after == timedelta(minutes=15)


def test_definitions_survive_being_stored(tmp_path: Path) -> None:
    (tmp_path / "mine.j2").touch()
    path = tmp_path / "tallystick.yaml"
    path.write_text(EVERYTHING.replace("10%, runs", "10, runs").replace("europe/berlin", "Europe/Berlin"))
    config = load_config(path, {"HOOK": HOOK, "TOKEN": "t0ken", "PATH_PART": "a"})
    for one in (*config.budgets, *config.rules):
        stored = one.model_dump_json(by_alias=True)
        assert type(one).model_validate_json(stored) == one
        assert type(one).model_validate(json.loads(stored)) == one


def test_keys_that_are_merged() -> None:
    config = load(
        """
channels: {out: {type: stdout}}
budgets:
  - &base {name: a, amount: 1, period: day, notify: [out]}
  - {<<: *base, name: b, amount: 2, scope: {team: x}}
"""
    )
    assert config.problems == ()
    assert [(one.name, one.amount) for one in config.budgets] == [("a", Decimal(1)), ("b", Decimal(2))]


# --- what is wrong, and where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("amount: 0", "13 amount: must be greater than 0"),
        ("amount: -5", "13 amount: must be greater than 0"),
        ("amount: 1O0", "13 amount: write a number such as 100 or 0.5"),
        ("amount: .inf", "13 amount: write a number such as 100 or 0.5"),
        ("amount: 1e99", "13 amount: write a number such as 100 or 0.5"),
        ("amount: [1]", "13 amount: write a number such as 100 or 0.5"),
        ("amount:", "12 amount: write a number such as 100 or 0.5"),
        ("name: ' a'", "11 name: write a name, without control characters or spaces around it"),
        ("name: [a]", "11 name: write a name, without control characters or spaces around it"),
        (
            "period: fortnight",
            "13 period: write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`",
        ),
        (
            "period: {every: 2 weeks, start: 2026-02-30}",
            "13 period: write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`",
        ),
        (
            "period: {every: 0 weeks, start: 2026-02-03}",
            "13 period: write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`",
        ),
        (
            "period: {every: 2 weeks}",
            "13 period: write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`",
        ),
        (
            "period: {every: 2 weeks, start: 2026-02-03, end: 2027-02-03}",
            "13 period: write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`",
        ),
        ("timezone: EUROPE/BERLIN", "15 timezone: no such time zone; did you mean `Europe/Berlin`?"),
        ("timezone: Europe/Berlni", "15 timezone: no such time zone; did you mean `Europe/Berlin`?"),
        ("timezone: europe/paris", "15 timezone: no such time zone; did you mean `Europe/Paris`?"),
        ("timezone: ../../etc/passwd", "15 timezone: no such time zone; write one such as `Europe/Berlin` or `UTC`"),
        ("scope: {custmer: x}", "13 scope.custmer: no such dimension; did you mean `customer`?"),
        ("scope: {day: x}", "13 scope.day: `day` is a time, not a scope: set `period`"),
        ("scope: {team: }", '18 scope.team: write a value or a list of values; "" is what nothing was said about'),
        ("scope: {team: []}", '19 scope.team: write a value or a list of values; "" is what nothing was said about'),
        ("scope: acme", "12 scope: write dimensions with their values, such as `{customer: acme, model: [gpt-5, gpt-5-mini]}`"),
        ("each: agnet", "11 each: no such dimension; did you mean `agent`?"),
        ("each: month", "11 each: `month` is a time, not a scope: set `period`"),
        ("each: [agent]", "11 each: write the name of a dimension such as `customer`"),
        ("thresholds: [80, 50]", "17 thresholds: must ascend, each once: [50, 80]"),
        ("thresholds: [50, 50.0]", "17 thresholds: must ascend, each once: [50]"),
        ("thresholds: []", "17 thresholds: write at least one"),
        (
            "thresholds: [50, often]",
            "22 thresholds[1]: write percents such as 80, `forecast 100` or `{percent: 100, of: forecast}`, above 0 and up to 10000",
        ),
        (
            "thresholds: [0]",
            "18 thresholds[0]: write percents such as 80, `forecast 100` or `{percent: 100, of: forecast}`, above 0 and up to 10000",
        ),
        (
            "thresholds: [{percent: 50, off: forecast}]",
            "18 thresholds[0]: write percents such as 80, `forecast 100` or `{percent: 100, of: forecast}`, above 0 and up to 10000",
        ),
        (
            "thresholds: [{percent: 50, of: [forecast]}]",
            "18 thresholds[0]: write percents such as 80, `forecast 100` or `{percent: 100, of: forecast}`, above 0 and up to 10000",
        ),
        ("tresholds: [50]", "5 tresholds: unknown field; did you mean `thresholds`?"),
        ("minimum: -1", "14 minimum: must be greater than or equal to 0"),
        ("correction_percent: 0", "25 correction_percent: must be greater than 0"),
        ("measure: token", "14 measure: write 'cost', 'tokens' or 'calls'"),
        ("notify: [taem]", "14 notify[0]: no such channel; did you mean `team`?"),
        ("notify: {default: ops, 100: taem}", "33 notify.100: no such channel; did you mean `team`?"),
        ("notify: {default: ops, 90: team}", "13 notify: 90 is no threshold of this budget: it has 50, 80, 100"),
        ("notify: {100: team}", "13 notify: nobody would hear of 50, 80: name its channels, or `default`"),
        ("notify:", "12 notify: write channels, `[team]`, or thresholds with theirs, `{default: [team], 100: [team, oncall]}`"),
        ("currency: euro", "15 currency: write three capital letters such as EUR"),
        ("exchange_rate: 1.1", "20 exchange_rate: the amount is in USD already: name its `currency`, or leave the rate out"),
        ("week_starts: sunday", "18 week_starts: only `period: week` has it"),
        ("quiet_hours: {from: 22:00, until: 25:00}", "39 quiet_hours.until: write a time of day such as 22:00"),
        (
            "quiet_hours: {from: 22:00, until: 22:00}",
            "39 quiet_hours.until: is the same time as `from`: that would be all day; for a budget that is only shown write `notify: []`",
        ),
        ("quiet_hours: {from: 22:00, until: 6:00, excpt: 1}", "45 quiet_hours.excpt: unknown field; did you mean `except`?"),
        ("quiet_hours: {from: 22:00, until: 6:00, except: [90]}", "18 quiet_hours: `except`: 90 is no threshold of this budget"),
        ("owners: {a: b}", "13 owners: write names"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(line: str, expected: str) -> None:
    assert problem_of(line) == expected


def test_a_continent_is_no_time_zone() -> None:
    assert problem_of("timezone: America").startswith("15 timezone: no such time zone; did you mean `America/")


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (
            ["{}"],
            [
                "3:5: budgets[0].amount: is missing: write a number above 0",
                "3:5: budgets[0].name: is missing: write a name, without control characters or spaces around it",
                "3:5: budgets[0].notify: is missing: write channels, `[team]`, or `[]` for what is only shown",
                "3:5: budgets[0].period: is missing: write hour, day, week, month or quarter",
            ],
        ),
        (
            ["{name: a, amount: 1, period: day, notify: [], each: team, scope: {team: x}}"],
            ["3:57: budgets[0].each: `scope` fixes team to one value already: take it out of one of them"],
        ),
        (
            ["{name: a, amount: 1, period: day, notify: [], currency: EUR}"],
            ["3:5: budgets[0].exchange_rate: is missing: add `exchange_rate`, the price of one EUR in USD"],
        ),
        (
            ["{name: a, amount: 1, period: day, notify: [], measure: calls, currency: EUR, exchange_rate: 2}"],
            ["3:77: budgets[0].currency: calls have no currency: leave it out"],
        ),
        (
            ["{name: a, amount: 1, period: day, notify: [], amount: 2}"],
            ["3:51: budgets[0].amount: stands here twice, first in line 3: keep one"],
        ),
        (
            ["{name: a, amount: 1, period: {every: 1 week, start: 2026-01-05}, week_starts: sunday, notify: []}"],
            ["3:83: budgets[0].week_starts: the weekday of the period's `start` says it already"],
        ),
        (["a budget"], ["3:5: budgets[0]: write a mapping such as `{name: …, notify: [team]}`"]),
        (
            ["{name: a, amount: 1, period: day, notify: []}", "{name: a, amount: 2, period: day, notify: []}"],
            ["4:12: budgets[1].name: is taken by the one in line 3: give each budget and rule its own"],
        ),
    ],
)
def test_what_is_wrong_with_more_than_a_line(budgets: list[str], expected: list[str]) -> None:
    config = load("# budgets\nbudgets:\n" + "".join(f"  - {one}\n" for one in budgets))
    assert [str(one) for one in config.problems] == [f"configuration:{one}" for one in expected]


def test_all_problems_at_once_and_the_good_go_on() -> None:
    config = load(
        """
chanels: {}
channels:
  team: {type: slak}
  out: {type: stdout}
budgets:
  - name: a
    amount: zero
    period: dai
    notify: [out]
  - {name: b, amount: 1, period: day, notify: [out]}
rules:
  - {name: c, type: no_data, after: soon, notify: [out]}
  - {name: d, type: no_data, notify: [out]}
"""
    )
    assert [(one.line, one.field) for one in config.problems] == [
        (2, "chanels"),
        (4, "channels.team.type"),
        (8, "budgets[0].amount"),
        (9, "budgets[0].period"),
        (13, "rules[0].after"),
    ]
    assert [one.name for one in (*config.budgets, *config.rules)] == ["b", "d"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: a, type: anomly, notify: []}", "rules[0].type: no such type; did you mean `anomaly`?"),
        (
            "{name: a, notify: []}",
            "rules[0]: is missing `type`: anomaly, latency, cost_per_success, no_data, unpriced, probe_regression",
        ),
        (
            "{name: a, type: latency, ttft_ms: 1, percentile: 99, burn: 101, notify: []}",
            "rules[0].burn: can't be reached: percentile 99 burns at most 100 times too fast",
        ),
        ("{name: a, type: no_data, after: 0m, notify: []}", "rules[0].after: write a duration such as 30m, 12h, 7d or 2w"),
        (
            "{name: a, type: no_data, quiet_hours: {from: 1:00, until: 2:00, except: [100]}, notify: []}",
            "rules[0].quiet_hours: `except` names thresholds of a budget; a rule has none",
        ),
        (
            "{name: a, type: anomaly, figure: sped, notify: []}",
            "rules[0].figure: write 'spend', 'tokens_per_call', 'error_share' or 'cache_hit_share'",
        ),
    ],
)
def test_rules_that_are_wrong(text: str, expected: str) -> None:
    (found,) = load(f"rules:\n  - {text}\n").problems
    assert f"{found.field}: {found.text}" == expected


def test_names_are_one_for_budgets_and_rules() -> None:
    config = load(
        """
budgets: [{name: a, amount: 1, period: day, notify: []}]
rules: [{name: a, type: no_data, notify: []}]
"""
    )
    assert [str(one) for one in config.problems] == [
        "configuration:3:16: rules[0].name: is taken by the one in line 2: give each budget and rule its own"
    ]
    assert (len(config.budgets), config.rules) == (1, ())


def test_overlapping_budgets_are_warned_of() -> None:
    config = load(
        """
budgets:
  - {name: a, amount: 1, period: day, scope: {team: x, customer: [p, q]}, notify: []}
  - {name: b, amount: 2, period: day, scope: {customer: [q, p], team: x}, notify: []}
  - {name: c, amount: 2, period: day, scope: {team: x}, notify: []}
  - {name: d, amount: 2, period: week, scope: {team: x}, notify: []}
  - {name: f, amount: 2, period: week, scope: {team: x}, each: agent, notify: []}
  - {name: e, measure: calls, amount: 2, period: day, scope: {team: x}, notify: []}
"""
    )
    assert len(config.budgets) == 6
    assert [str(one) for one in config.warnings] == [
        "configuration:4:5: budgets[1]: counts the same spend over the same periods as the budget in line 3"
    ]


def test_a_channel_that_cannot_be_used_leaves_who_has_another() -> None:
    config = load(
        """
channels: {team: {type: slack, url: "${NOT_SET}"}, out: {type: stdout}}
budgets:
  - {name: both, amount: 1, period: day, notify: [team, out]}
  - {name: alone, amount: 1, period: week, notify: [team]}
  - {name: half, amount: 1, period: month, notify: {default: [out], 100: [team]}}
"""
    )
    assert [str(one).removeprefix("configuration:") for one in config.problems] == [
        "2:37: channels.team.url: the environment variable `NOT_SET` isn't set",
        "4:51: budgets[0].notify[0]: the channel in line 2 can't be used",
        "5:52: budgets[1].notify: is left out until a channel of it can be used: nobody would hear of it",
        "5:53: budgets[1].notify[0]: the channel in line 2 can't be used",
        "6:52: budgets[2].notify: is left out until a channel of it can be used: nobody would hear of it",
        "6:75: budgets[2].notify.100[0]: the channel in line 2 can't be used",
    ]
    assert [(one.name, one.channels_for("actual:100")) for one in config.budgets] == [("both", ("out",))]


def test_a_channel_that_cannot_be_used_leaves_rules_the_same_way() -> None:
    config = load(
        """
channels: {hook: {type: webhook, url: "https://example.com", secret: "whsec_${NOT_SET}"}, out: {type: stdout}}
rules:
  - {name: both, type: no_data, notify: [hook, out]}
  - {name: alone, type: no_data, notify: [hook]}
  - {name: shown, type: no_data, notify: []}
"""
    )
    assert [(one.name, one.notify) for one in config.rules] == [("both", ("out",)), ("shown", ())]
    assert [one.field for one in config.problems] == [
        "channels.hook.secret",
        "rules[0].notify[0]",
        "rules[1].notify",
        "rules[1].notify[0]",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget: []", "configuration:1:1: budget: unknown section; did you mean `budgets`?"),
        ("budgets: {a: 1}", "configuration:1:10: budgets: write a list: each entry begins with `- `"),
        ("channels: [a]", "configuration:1:11: channels: write names with their channels: `team: {type: slack, url: …}`"),
        (
            "channels: {a b: {type: stdout}}",
            "configuration:1:12: channels.a b: name channels with letters, digits, `_`, `.` and `-`",
        ),
        (
            "prices: [1]\nbudgets: [{name: a, amount: 1, period: day, notify: [], currency: EUR}]",
            "configuration:2:11: budgets[0].exchange_rate: is missing: add `exchange_rate`, the price of one EUR in USD",
        ),
    ],
)
def test_sections_that_are_something_else(text: str, expected: str) -> None:
    assert [str(one) for one in load(text).problems] == [expected]


# --- nothing can be used -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b", "configuration:1:1: write a mapping with `prices`, `allocations`, `probes`, `channels`, `budgets`, `rules`"),
        ("budgets:\n  - {name: a\n", "configuration:3:1: not valid YAML: "),
        ("channels:\n  a: {type: slack, url: ${HOOK}}\n", "within { } and [ ] a variable needs quotes"),
        ("a: &x [*x]", "configuration:1:1: is nested too deeply"),
        ("[" * 5000, "configuration:1:1: is nested too deeply"),
        ("a: 1\n---\nb: 2\n", "configuration:2:1: not valid YAML: but found another document"),
        ("budgets: [{[a]: b}]", "configuration:1:12: not valid YAML: a key must be a text"),
        ("a: \x07", "configuration:1:1: not valid YAML: has characters that YAML doesn't allow"),
        (
            "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 20))]),
            "aliases counted",
        ),
    ],
)
def test_what_is_no_configuration(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(text)
    assert expected in str(error.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tallystick.yaml"
    path.write_bytes(b"budgets: \xff\xfe")
    with pytest.raises(ConfigError, match="is no text in UTF-8"):
        load_config(path, {})
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("field", ["amount", "minimum", "correction_percent", "thresholds", "scope"])
def test_true_is_no_number_and_no_value(field: str) -> None:
    """JSON of the API has types of its own."""
    value: Any = {"thresholds": [True], "scope": {"team": True}}.get(field, True)
    with pytest.raises(ValidationError) as error:
        budget(**{field: value})
    assert [detail["loc"][0] for detail in error.value.errors()] == [field]


# --- secrets -----------------------------------------------------------------------------------------------------------------------

SECRET = "s3cret"


@pytest.mark.parametrize(
    "part",
    [
        'channels: {a: {type: slack, url: "${HOOK}"}}',
        'channels: {a: {type: slack, url: "${BARE}"}}',
        'channels: {a: {type: slack, token: "${BARE}"}}',
        'channels: {a: {type: slack, url: "${HOOK}", token: "${BARE}", channel: c}}',
        'channels: {a: {type: webhook, url: "${HOOK}", secret: ["${BARE}"]}}',
        'channels: {a: {type: webhook, url: {"${HOOK}": 1}, secrt: "${BARE}"}}',
        'channels: {a: {type: "${BARE}"}}',
        'channels: {a: "${HOOK}"}',
        'channels: {a: {type: email, host: "${HOOK}", from: "${BARE}", to: ["${BARE}"], port: "${BARE}", tls: "${BARE}", password: "${BARE}"}}',
        f"channels: {{'{HOOK}': {{type: stdout}}}}",
        f"channels: {{a: {{'{HOOK}': {{type: stdout}}}}}}",
        'budgets: [{name: a, amount: "${BARE}", period: "${BARE}", timezone: "${BARE}", notify: ["${HOOK}"]}]',
        'budgets: [{name: a, amount: 1, period: day, notify: "${HOOK}", measure: "${BARE}", each: "${BARE}", week_starts: "${BARE}"}]',
        'budgets: [{name: a, amount: 1, period: day, notify: {"x": 1}, scope: "${BARE}", quiet_hours: "${BARE}", thresholds: "${BARE}"}]',
        'rules: [{name: a, type: "${BARE}"}, {name: "${BARE}", type: no_data, after: "${BARE}", notify: "${BARE}"}]',
        'channels: {a: {type: slack, url: "${HOOK"}}',
        f"channels: {{a: {{type: slack, url: {HOOK}, url: {HOOK}}}}}",
        f'channels: {{a: {{type: slack, url: "{HOOK}" "}}}}',
    ],
)
def test_no_error_shows_a_secret(part: str) -> None:
    environ = {"HOOK": HOOK, "BARE": f"xoxb-{SECRET}"}
    try:
        config = load(part, environ)
        shown = repr(config) + "".join(str(one) for one in config.problems)
        assert config.problems or "SecretStr('**********')" in shown
    except ConfigError as error:
        shown = f"{error}{error.problems!r}"
    assert SECRET not in shown


def test_channels_made_directly_show_no_secret_either() -> None:
    wrong: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (SlackChannel, {"url": SECRET}),
        (WebhookChannel, {"url": HOOK, "secret": [SECRET]}),
        (TeamsChannel, {"u": SECRET}),
    ]
    for kind, fields in wrong:
        with pytest.raises(ValueError, match=r"validation error") as error:
            kind.model_validate(fields)
        assert SECRET not in str(error.value)


@pytest.mark.parametrize("written", ["${A}${B}", "${A}-${A}", "$A", "$", "{A}"])
def test_variables(written: str) -> None:
    config = load(f"budgets: [{{name: '{written}', amount: 1, period: day, notify: []}}]", {"A": "x", "B": "${A}"})
    assert config.budgets[0].name == written.replace("${A}", "x").replace("${B}", "${A}")


@pytest.mark.parametrize("written", ["${}", "${1}", "${A:-b}", "${a b}"])
def test_variables_that_are_none(written: str) -> None:
    (found,) = load(f"budgets: [{{name: '{written}', amount: 1, period: day, notify: []}}]").problems
    assert (
        str(found)
        == "configuration:1:18: budgets[0].name: names no environment variable: write ${NAME}, in letters, digits and _"
    )


# --- channels ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{type: slack}", "channels.a: needs either `url`, of an incoming webhook, or `token` with `channel`, of a bot"),
        ("{type: slack, token: x}", "channels.a: `token` and `channel` go together; an incoming webhook has its channel already"),
        ("{type: slack, url: hooks.slack.com}", "channels.a.url: write an address that begins with https://"),
        ("{type: teams, url: 'https://ex ample.com'}", "channels.a.url: write an address that begins with https://"),
        ("{type: webhook, url: 'https://example.com:x'}", "channels.a.url: write an address that begins with https://"),
        ("{type: webhook, url: 'https:///path'}", "channels.a.url: write an address that begins with https://"),
        ("{type: webhook, url: 'ftp://example.com/in'}", "channels.a.url: write an address that begins with https://"),
        ("{type: webhook, url: 'file:///etc/passwd'}", "channels.a.url: write an address that begins with https://"),
        ("{type: pagerduty, routing_key: ' '}", "channels.a.routing_key: is empty"),
        ("{type: email, host: h, from: a@b, to: []}", "channels.a.to: write at least one"),
        ("{type: email, host: h, from: a, to: a@b}", "channels.a.from: write an e-mail address"),
        ("{type: email, host: h, from: a@b, to: a@b, username: u}", "channels.a: `username` and `password` go together"),
        (
            "{type: email, host: h, from: a@b, to: a@b, username: u, password: p, tls: none}",
            "channels.a: a password isn't sent in the clear: set `tls` to starttls or tls",
        ),
        ("{type: stdout, template: no.j2}", "channels.a.template: there is no such file beside the configuration"),
    ],
)
def test_channels_that_are_wrong(text: str, expected: str) -> None:
    assert [f"{one.field}: {one.text}" for one in load(f"channels:\n  a: {text}\n").problems] == [expected]


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_ports_of_mail(tls: str, port: int) -> None:
    fields: dict[str, Any] = {"host": "h", "from": "a@b", "to": "a@b", "tls": tls}
    assert EmailChannel.model_validate(fields).port == port
    assert EmailChannel.model_validate(fields | {"port": 2525}).port == 2525


# --- revisions ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        {"amount": 101},
        {"measure": "tokens"},
        {"period": "week"},
        {"period": {"every": "1 month", "start": "2026-01-01"}},
        {"timezone": "Europe/Berlin"},
        {"scope": {"team": "x"}},
        {"each": "agent"},
        {"thresholds": [50, 80]},
        {"thresholds": [50, 80, "forecast 100"]},
        {"currency": "EUR", "exchange_rate": 2},
    ],
)
def test_what_changes_the_meaning_is_another_revision(edit: dict[str, Any]) -> None:
    assert fingerprint(budget(**edit)) != fingerprint(budget())


@pytest.mark.parametrize(
    "edit",
    [
        {"name": "other"},
        {"owners": ["a"]},
        {"notify": {"default": ["team"], "100": ["oncall"]}},
        {"quiet_hours": {"from": "22:00", "until": "6:00"}},
        {"minimum": 3},
        {"correction_percent": 1},
        {"amount": "100.00"},
        {"thresholds": ["50%", "80.0", {"percent": 100}]},
        {"amount": 50, "currency": "EUR", "exchange_rate": 2},
    ],
)
def test_what_does_not_is_the_same(edit: dict[str, Any]) -> None:
    assert fingerprint(budget(**edit)) == fingerprint(budget()) == "c1e157edca3b5df8"


def test_the_order_of_a_scope_is_no_meaning() -> None:
    one, other = budget(scope={"team": ["a", "b"], "user": "u"}), budget(scope={"user": ["u"], "team": ["b", "a", "b"]})
    assert fingerprint(one) == fingerprint(other)


# --- quiet hours -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (("22:00", "07:00"), "2026-03-10T20:59", None),
        (("22:00", "07:00"), "2026-03-10T21:00", "2026-03-11T06:00"),
        (("22:00", "07:00"), "2026-03-11T05:59", "2026-03-11T06:00"),
        (("22:00", "07:00"), "2026-03-11T06:00", None),
        (("12:00", "13:00"), "2026-03-10T11:30", "2026-03-10T12:00"),
        (("12:00", "13:00"), "2026-03-10T12:00", None),
        (("12:00", "13:00"), "2026-03-10T10:59", None),
        # The night of 23 hours, and the one of 25, in which 02:30 comes twice.
        (("22:00", "07:00"), "2026-03-28T22:00", "2026-03-29T05:00"),
        (("22:00", "02:30"), "2026-03-28T22:00", "2026-03-29T01:30"),
        (("22:00", "02:30"), "2026-10-25T00:15", "2026-10-25T00:30"),
        (("22:00", "02:30"), "2026-10-25T01:15", "2026-10-25T01:30"),
        (("22:00", "02:30"), "2026-10-25T01:30", None),
        (("22:00", "24:00"), "2026-03-10T22:30", "2026-03-10T23:00"),
    ],
)
def test_quiet_hours(hours: tuple[str, str], now: str, end: str | None) -> None:
    """In Berlin, told in UTC."""
    quiet = QuietHours.model_validate({"from": hours[0], "until": hours[1]})
    found = quiet.end_after(datetime.fromisoformat(now).replace(tzinfo=UTC), "Europe/Berlin")
    assert found == (None if end is None else datetime.fromisoformat(end).replace(tzinfo=UTC))
    elsewhere = quiet.model_copy(update={"timezone": "Europe/Berlin"})
    assert elsewhere.end_after(datetime.fromisoformat(now).replace(tzinfo=UTC), "Asia/Tokyo") == found


# --- any text ----------------------------------------------------------------------------------------------------------------------

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["day", "team", "${A}", "50"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["type", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = sorted(
    {*Budget.model_fields, *LatencyRule.model_fields, *SlackChannel.model_fields, "from", "to", "host", "url", "type"}
)
PARTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "channels": VALUES | st.dictionaries(st.text(max_size=5), PARTS, max_size=3),
            "budgets": VALUES | st.lists(PARTS, max_size=3),
            "rules": VALUES | st.lists(PARTS, max_size=3),
            "prices": VALUES,
        },
    )
)
def test_whatever_stands_there_is_loaded_or_a_problem(content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, allow_unicode=True)
    try:
        config = load(text, {"A": "1"})
    except ConfigError:
        return
    for problem in config.problems:
        assert 1 <= problem.line <= len(text.splitlines()) + 1
        assert problem.field


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("abudgets:{}[]-&*!|>'\"${}\n\t #,?%@`0\u0000\ud800<~"), max_size=60))
def test_any_text_at_all(text: str) -> None:
    with contextlib.suppress(ConfigError):
        load("budgets: " + text, {})
