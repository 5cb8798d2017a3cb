"""What docs/allocation.md and docs/what-if.md tell people to write can be read, and what they tell to type exists."""

import re
import shlex
from pathlib import Path

import click
import pytest

from tallystick.attribution.allocation_rules import AllocationRule, read_allocations
from tallystick.cli import cli

DOCS = Path(__file__).parent.parent / "docs"
TEXTS = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("allocation", "what-if")}
COMMANDS = [line for text in TEXTS.values() for line in re.findall(r"^tallystick .*$", text, re.MULTILINE)]


def test_the_rules_of_the_documentation_are_rules() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", TEXTS["allocation"], re.MULTILINE | re.DOTALL)
    rules = read_allocations(text)
    assert [rule.kind for rule in rules] == ["overhead", "fixed", "idle", "amount"]
    assert not any(rule.warnings for rule in rules)


def test_every_field_of_a_rule_is_told_of() -> None:
    assert [name for name in AllocationRule.model_fields if name not in TEXTS["allocation"]] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    found.make_context(name, arguments)
