"""The report as one HTML file: no script, nothing from elsewhere, every text from outside escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from tallystick.probes.report.blocks import Section


class Verdict(NamedTuple):
    """A sentence of the head. tone: `good`, `bad`, `warn` or ''."""

    text: str
    tone: str = ""


def page(title: str, subtitle: str, verdicts: Sequence[Verdict], sections: Sequence[Section], footer: str) -> str:
    """HTML. Definitions of all blocks are titles of the figures' names wherever those stand."""
    definitions = {name: said for section in sections for block in section.blocks for name, said in block.definitions.items()}
    template = _environment().get_template("page.html.j2")
    return template.render(
        title=title, subtitle=subtitle, verdicts=verdicts, sections=sections, footer=footer, definitions=definitions
    )


def write_page(path: Path, html: str) -> None:
    """Whole or not at all: who looks while it is written sees the one before. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(html, encoding="utf-8")
    new.replace(path)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
