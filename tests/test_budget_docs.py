"""docs/budgets.md says what is so: every YAML in it, in docs/alerts.md and in README can be copied as it is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tallystick.alerts.channels.open import channel_for
from tallystick.alerts.config import Config, load_config
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.config_rules import Rule
from tallystick.attribution.prices_file import load_prices_file

ROOT = Path(__file__).parent.parent
SHARED = {"type", "name", "notify", "scope", "each", "quiet_hours", "timezone", "owners"}
DOCS = (ROOT / "docs" / "budgets.md").read_text(encoding="utf-8")


def blocks(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


BLOCKS = [
    pytest.param(block, id=f"{document}-{number}")
    for document in ("README.md", "docs/alerts.md", "docs/budgets.md")
    for number, block in enumerate(blocks(document))
]


def loaded(block: str) -> Config:
    environ = {name: f"https://hooks.example/{name}" for name in re.findall(r"\$\{(\w+)\}", block)}
    return load_config(block, environ, open_channel=lambda name, channel: channel_for(name, channel, allow_private=False))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_yaml_can_be_copied(block: str, tmp_path: Path) -> None:
    config = loaded(block)
    assert (config.problems, config.warnings) == ((), ())
    assert set(config.channels) >= {channel for budget in config.budgets for some in budget.notify.values() for channel in some}
    # The same file is read for prices.
    (tmp_path / "file.yaml").write_text(block)
    load_prices_file(tmp_path / "file.yaml")


def test_the_smallest_file_is_the_same_everywhere() -> None:
    assert blocks("README.md")[0] == blocks("docs/budgets.md")[0]
    acme, each = loaded(blocks("README.md")[0]).budgets
    assert (
        [one.key for one in acme.thresholds] == [one.key for one in each.thresholds] == ["actual:50", "actual:80", "actual:100"]
    )


def test_there_are_ten_cases_and_they_differ() -> None:
    cases = DOCS.partition("## The ten usual cases")[2].partition("\n## ")[0]
    found = [loaded(block).budgets[0] for block in re.findall(r"^```yaml\n(.*?)^```$", cases, re.MULTILINE | re.DOTALL)]
    assert len({budget.name for budget in found}) == 10
    asked_for = {
        "each customer": any(one.each == "customer" and one.floor for one in found),
        "each agent a day": any(one.each == "agent" and one.period.unit == "day" for one in found),
        "e-mail and Slack by threshold": any({"team", "finance"} <= set(one.notify.get("actual:100", ())) for one in found),
        "tokens": any(one.measure == "tokens" for one in found),
        "forecast": any(one.foresees for one in found),
        "quarter in EUR": any(
            (one.currency, one.period.unit, one.timezone) == ("EUR", "quarter", "Europe/Berlin") for one in found
        ),
        "a feature in production": any(set(one.scope) == {"feature", "environment"} for one in found),
        "quiet hours with an exception": any(one.quiet_hours and one.quiet_hours.except_ for one in found),
        "throttling": any("throttle" in one.notify.get("actual:100", ()) for one in found),
    }
    assert [case for case, there in asked_for.items() if not there] == []


def rows(heading: str) -> dict[str, list[str]]:
    """Of the table under a heading: first cell → the others."""
    table = re.findall(r"^\| `([^`]+)` \|(.*)\|$", DOCS.partition(f"## {heading}")[2].partition("\n## ")[0], re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in table}


def test_every_field_has_its_row_and_its_default() -> None:
    table = rows("Fields")
    assert table.keys() == Budget.model_fields.keys()
    plain = Budget.model_validate({"name": "a", "amount": 1, "period": "day", "notify": []})
    for name, (default, _) in table.items():
        if default.startswith("`["):
            assert default == f"`[{', '.join(one.key.removeprefix('actual:') for one in plain.thresholds)}]`"
        elif default.startswith("`"):
            assert default == f"`{getattr(plain, name)}`", name
        else:
            assert Budget.model_fields[name].is_required() or not getattr(plain, name), name


def test_every_rule_has_its_row_with_its_fields() -> None:
    table = rows("More than thresholds")
    kinds = {kind.model_fields["type"].default: kind for kind in get_args(get_args(Rule)[0])}
    assert table.keys() - {"type"} == kinds.keys()
    for name, kind in kinds.items():
        fields = {field: info for field, info in kind.model_fields.items() if field not in SHARED}
        # What stands in brackets are other values of the same field.
        told = re.findall(r"`(\w+)(?:: ([\w.]+))?`", re.sub(r"\(.*?\)", "", table[name][1]))
        assert [field for field, _ in told] == list(fields), name
        least = {"name": "a", "notify": []} | {field: "1" for field, info in fields.items() if info.is_required()}
        defaults = {field: value for field, value in told if value}
        assert kind.model_validate(least | defaults) == kind.model_validate(least), name
