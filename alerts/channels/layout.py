"""Templates: the shipped ones, and users' own in their place, sandboxed, with everything that others named escaped for the channel."""

import functools
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from tallystick.alerts import figures
from tallystick.alerts.channels.sample import FULL, SPARSE
from tallystick.alerts.model import Message
from tallystick.alerts.text import Link, Text, text

SHIPPED: Final = Path(__file__).parent.parent / "templates"
MOST: Final = 65_536
INVISIBLE: Final = "\u200b"

Usual = Callable[[Message, Text], str]

log = logging.getLogger(__name__)


class BadTemplate(ValueError):
    """A user's template that can't be used: which file, which line, why."""


@dataclass(frozen=True)
class Escapes:
    """How a channel's markup takes text, a link, and code."""

    text: Callable[[str], str]
    link: Callable[[str, str], str]
    code: Callable[[str], str]


def _slack(told: str) -> str:
    """Slack's three entities; a backtick, for which it has none, becomes one that opens no code."""
    return told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "ˋ")


def _slack_link(label: str, url: str) -> str:
    return f"<{_slack(url).replace('|', '%7C')}|{_slack(label)}>"


def _fenced(told: str) -> str:
    return "```\n" + told.replace("```", f"``{INVISIBLE}`") + "\n```"


def _slack_code(told: str) -> str:
    return _fenced(told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _markdown(told: str) -> str:
    return re.sub(r"([\\`*_\[\]<>~])", r"\\\1", told)


def _markdown_link(label: str, url: str) -> str:
    return f"[{_markdown(label)}]({url.replace('(', '%28').replace(')', '%29').replace('<', '%3C').replace('>', '%3E')})"


def _html_link(label: str, url: str) -> str:
    return f'<a href="{escape(url)}">{escape(label)}</a>'


SLACK: Final = Escapes(_slack, _slack_link, _slack_code)
MARKDOWN: Final = Escapes(_markdown, _markdown_link, _fenced)
HTML: Final = Escapes(lambda told: str(escape(told)), _html_link, lambda told: f"<pre>{escape(told)}</pre>")
PLAIN: Final = Escapes(str, lambda label, url: f"{label}: {url}", str)
JSON: Final = Escapes(
    lambda told: json.dumps(told)[1:-1], lambda _, url: json.dumps(url)[1:-1], lambda told: json.dumps(told)[1:-1]
)


class Layout:
    """A message through a template. The user's is tried when this is made, with a full and with a sparse message: what raises then, or
    uses a name that there isn't, is a `BadTemplate`. What raises later gives the usual layout, with a note that says so."""

    def __init__(
        self, usual: str | Usual, markup: Escapes, *, user: Path | None = None, valid: Callable[[str], object] | None = None
    ) -> None:
        """usual: a file of `templates/`, or what makes the layout without one. valid: raises ValueError for a rendering that the channel
        can't use."""
        self._markup = markup
        self._valid = valid
        self._user = user
        self._warned = False
        self._usual = usual if callable(usual) else functools.partial(_render, _environment(markup, SHIPPED).get_template(usual))
        self._template = self._load(user) if user else None

    def render(self, message: Message) -> str:
        told = text(message)
        if self._template is not None and self._user is not None:
            try:
                return self._checked(self._template, message, told)
            except Exception as error:  # whatever a template may raise
                note = f"The template {self._user.name} failed ({_reason(error)}), so this is the usual layout."
                if not self._warned:
                    log.warning("%s", note)
                self._warned = True
                told = told.with_note(note)
        return self._usual(message, told)

    def _load(self, path: Path) -> jinja2.Template:
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise BadTemplate(f"template {path}: can't be read: {why}") from None
        environment = _environment(self._markup, path.parent)
        try:
            unknown = jinja2.meta.find_undeclared_variables(environment.parse(source)) - {"text", "message"}
            template = environment.get_template(path.name)
        except jinja2.TemplateSyntaxError as error:
            raise BadTemplate(f"template {path}, line {error.lineno}: {error.message}") from None
        except jinja2.TemplateError as error:
            raise BadTemplate(f"template {path}: {error}") from None
        if unknown:
            names = ", ".join(sorted(unknown))
            raise BadTemplate(f"template {path}: no such name: {names}; there are `text` and `message`")
        for kind, sample in (("", FULL), (" for a message that knows little: test with `if` first", SPARSE)):
            try:
                self._checked(template, sample, text(sample))
            except Exception as error:
                raise BadTemplate(f"template {path}{_line(error, path)}: {_reason(error)}{kind}") from None
        return template

    def _checked(self, template: jinja2.Template, message: Message, told: Text) -> str:
        rendered = _render(template, message, told)
        if not rendered.strip():
            raise ValueError("it gives nothing")
        if self._valid is not None:
            self._valid(rendered)
        return rendered


@dataclass(frozen=True)
class Paragraph:
    text: str
    code: bool


def paragraphs(rendered: str) -> Iterator[Paragraph]:
    """What blank lines part; what stands between lines of three backticks is one, without them, whatever lines are in it."""
    held: list[str] = []
    code = False
    for row in rendered.splitlines():
        fence = row.strip() == "```"
        if fence or (not code and not row.strip()):
            yield from _paragraph(held, code)
            held = []
            code ^= fence
        else:
            held.append(row.rstrip())
    yield from _paragraph(held, code)


def _paragraph(rows: list[str], code: bool) -> Iterator[Paragraph]:
    if any(rows):
        yield Paragraph("\n".join(rows), code)


def _environment(markup: Escapes, folder: Path) -> ImmutableSandboxedEnvironment:
    def finalize(value: object) -> object:
        if hasattr(value, "__html__") or isinstance(value, jinja2.Undefined):
            return value
        return Markup(markup.text("\n".join(figures.clean(row) for row in str(value).splitlines())))  # noqa: S704

    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(folder), jinja2.FileSystemLoader(SHIPPED)]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=figures.amount,
        percent=figures.percent,
        share=figures.share,
        times=figures.times,
        duration=figures.duration,
        code=lambda told: Markup(markup.code(str(told))),  # noqa: S704
        link=_link(markup),
    )
    return environment


def _link(markup: Escapes) -> Callable[[Link], Markup]:
    return lambda link: Markup(markup.link(link.label, link.url))  # noqa: S704


def _render(template: jinja2.Template, message: Message, told: Text) -> str:
    pieces: list[str] = []
    size = 0
    for piece in template.generate(text=told, message=message):
        pieces.append(piece)
        size += len(piece)
        if size > MOST:
            raise ValueError(f"it gives more than {MOST:,} characters")
    return "".join(pieces)


def _line(error: BaseException, path: Path) -> str:
    """Where in the template something raised: jinja rewrites tracebacks so that they name its lines."""
    at, trace = "", error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            at = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return at


def _reason(error: Exception) -> str:
    told: Any = getattr(error, "message", None) or str(error) or type(error).__name__
    return figures.line(str(told), 200)
