"""docs/probes.md names every field and figure as the code has them, and what it shows can be typed."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from pydantic import BaseModel

from tallystick.alerts.channels.open import channel_for
from tallystick.alerts.config import load_config
from tallystick.cli import cli
from tallystick.probes import config
from tallystick.probes.config import ProbeConfig, read_config
from tallystick.probes.figures.definitions import DEFINITIONS
from tallystick.probes.figures.percentiles import fewest
from tallystick.probes.records import Outcome
from tallystick.probes.report import groups
from tallystick.probes.views import VIEWS
from tallystick.server.probe_times import ProbeSchedule, read_schedules

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/probes.md").read_text(encoding="utf-8")
MODELS: list[type[BaseModel]] = [
    ProbeSchedule,
    *(one for one in vars(config).values() if isinstance(one, type) and issubclass(one, BaseModel)),
]
FIELDS = sorted({(model.__name__, name) for model in MODELS for name in model.model_fields})
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"tallystick (?:probe|estimate) [^`\n&]+", TEXT + README)))


def named(name: str) -> bool:
    """As code: `name`, or in an example, `{name: 1}`."""
    return re.search(rf"`[^`\n]*\b{re.escape(name)}\b[^`\n]*`", TEXT) is not None


@pytest.mark.parametrize(("model", "name"), FIELDS)
def test_every_field_is_explained(model: str, name: str) -> None:
    assert named(name), f"{model}.{name} of probes/config.py isn't in docs/probes.md"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_figure_is_explained_as_in_the_code(name: str) -> None:
    assert f"| `{name}` | {DEFINITIONS[name]} |" in TEXT


@pytest.mark.parametrize("name", VIEWS)
def test_what_other_tools_do_otherwise_is_told(name: str) -> None:
    assert f"| `{name}` | {VIEWS[name].tool} | {' '.join(VIEWS[name].differs)} |" in TEXT


def test_names_that_records_and_reports_have_are_there() -> None:
    assert all(named(one.value) for one in Outcome if one not in (Outcome.OK, Outcome.CANCELLED))
    assert all(named(name) for name in groups.DEFINITIONS if name != "cached")
    said = re.search(r"p50 takes (\d+) of them, p90 (\d+), p95 (\d+), p99 (\d+)", TEXT)
    assert said is not None
    assert [int(one) for one in said.groups()] == [fewest(percent) for percent in (50, 90, 95, 99)]


def test_defaults_are_those_of_the_code() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", TEXT, re.MULTILINE))
    known = {
        name: field.default
        for model in (config.Load, config.EngineEntry, ProbeConfig, ProbeSchedule)
        for name, field in model.model_fields.items()
    }
    for name in ("stages", "requests", "warmup", "seconds", "seed", "engine", "api", "at_once", "timezone"):
        assert told[name].lower() == str(known[name]).lower(), name
    timeouts = config.Timeouts()
    assert all(re.search(rf"`{name}` {getattr(timeouts, name):g}\b", TEXT) for name in config.Timeouts.model_fields)


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
def test_examples_are_valid(block: str, tmp_path: Path) -> None:
    content = yaml.safe_load(block)
    if "engines" in content:
        assert read_config(block)
    elif "probes" in content:
        assert len(read_schedules(block)) == 2
    else:
        file = tmp_path / "rules.yaml"
        file.write_text(block)
        environ = {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x"}
        found = load_config(file, environ, open_channel=lambda name, channel: channel_for(name, channel, allow_private=False))
        assert found.problems == ()
        assert len(found.rules) == 1


@pytest.mark.parametrize("written", COMMANDS)
def test_commands_can_be_typed(written: str) -> None:
    words = shlex.split(written.replace("…", ""))[1:]
    command: click.Command | None = cli
    with click.Context(cli) as context:
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert command is not None, written
        known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / "docs" / path
        assert target.is_file(), link
        assert not anchor
    assert "\n## Schedules and alerts\n" in TEXT, "docs/budgets.md leads there"
