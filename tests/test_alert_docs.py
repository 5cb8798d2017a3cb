"""docs/alerts.md says what is so."""

import json
import re
from pathlib import Path

import pytest

from tallystick.alerts.channels.layout import MOST, SHIPPED, SLACK, Layout
from tallystick.alerts.channels.open import channel_for
from tallystick.alerts.channels.sample import FULL
from tallystick.alerts.channels.slack import payload
from tallystick.alerts.channels.webhook import body
from tallystick.alerts.config import load_config
from tallystick.alerts.config_channels import SlackChannel
from tallystick.alerts.text import Text
from tallystick.testing import block_kit

DOCS = (Path(__file__).parent.parent / "docs" / "alerts.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^(`{{3,4}}){language}\n(.*?)\n\1$", DOCS, re.DOTALL | re.MULTILINE)
    return str(found[1])


def test_the_message_in_slack() -> None:
    assert block("text") == block_kit.show(payload(FULL, Layout("slack.j2", SLACK).render(FULL)))


def test_the_json_of_webhooks() -> None:
    assert json.loads(block("json")) == json.loads(body(FULL))


def test_the_channels_can_be_opened() -> None:
    source = block("yaml")
    web = {name: f"https://hooks.example/{name}" for name in re.findall(r"\$\{(\w+)\}", source)}
    config = load_config(source, web)
    assert config.problems == ()
    table = DOCS.partition("| `type` | needs | does |")[2].partition("\n\n")[0]
    assert {channel.type for channel in config.channels.values()} == set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    for name, channel in config.channels.items():
        assert channel_for(name, channel, allow_private=False).name == name


def test_the_template(tmp_path: Path) -> None:
    own = tmp_path / "own.j2"
    own.write_text(block("jinja"), encoding="utf-8")
    assert channel_for("a", SlackChannel.model_validate({"url": "https://a.example/", "template": own}), allow_private=False)
    told = Layout("slack.j2", SLACK, user=own).render(FULL)
    assert "Runbook: https://wiki.example/spend" in told
    assert "SELECT" not in told


@pytest.mark.parametrize("template", sorted(SHIPPED.glob("*.j2")), ids=lambda path: path.name)
def test_the_blocks_of_templates(template: Path) -> None:
    told = re.search(r"change a block \((.*?)\)", DOCS)
    assert told is not None
    assert re.findall(r"{% block (\w+) %}", template.read_text(encoding="utf-8")) == re.findall(r"`(\w+)`", told[1])


def test_the_names_in_templates() -> None:
    (row,) = re.findall(r"^\| `text` \| the message in words: (.*) \|$", DOCS, re.MULTILINE)
    assert re.findall(r"`(\w+)`", re.sub(r" \(.*?\)", "", row)) == list(Text.__dataclass_fields__)
    assert f"{MOST:,} characters" in DOCS
