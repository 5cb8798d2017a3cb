"""Named questions: files of attribution/questions, each SQL over `charges` and `outcomes` with what it means at its head.

The head is comment lines: a sentence, and the sections `definition:` (each figure of the answer), `parameters:` and `example:`.

    -- What was spent, by any dimensions.
    --
    -- definition:
    -- * cost_usd: sum of all entries; a line may go on
    --   in the next
    -- * first_seen, last_seen: when the first and the last of them began
    -- parameters:
    -- * by dimensions = customer: what to group by
    -- * order choice cost|calls = cost: by what to order
    -- * text text: this one has no default and must be given
    -- example: tallystick ask spend --by customer

Kinds are `time`, `dimensions`, `filters`, `count` (a whole number), `number`, `text`, `choice` (one of `a|b`). `dimensions a|b|tag:` and `filters a|b` are
these only, and may be columns of the body's own. In the body stand, for

* dimensions: `/*by:expressions*/` (SQL AS name, …) and `/*by:names*/` (the names), each item followed by a comma; nothing for `total`
* filters: `/*where*/`, a condition
* `since` and `until`: `/*period*/`, the condition that an entry belongs to the period, and `/*before*/`, to the one of the same length before
* times: `{since:DateTime64(9, 'UTC')}`; `{now:DateTime64(9, 'UTC')}` is there without being declared
* all others: `{name:Type}`
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tallystick.attribution.moments import end_of_day, moment, nanoseconds, utc_text
from tallystick.attribution.spend import DIMENSIONS, Query, UnknownDimension, expression, period, quoted

Kind = Literal["time", "dimensions", "filters", "count", "number", "text", "choice"]
Given = Mapping[str, str | Sequence[str]]

_FOLDER: Final = Path(__file__).parent / "questions"
_PLACE: Final = re.compile(r"/\*(\w+)(?::(names|expressions))?\*/")
_PARAMETER: Final = re.compile(rf"(\w+) ({'|'.join(get_args(Kind))})(?: ([\w:|]+))?(?: = ((?:tag:|[^:])*))?: (.+)")
_LARGEST: Final = 10**9


class UnknownQuestion(ValueError):
    """No such question. The message proposes what may have been meant."""


class BadParameter(ValueError):
    """A parameter is unknown, missing, or not of its form. The message names it and says what is understood."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


@dataclass(frozen=True)
class Parameter:
    """What a question can be told. default: as it would be given; None: it must be. choices: of a choice, or the only dimensions."""

    name: str
    kind: Kind
    default: str | None
    meaning: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """definition: figure of the answer → what it is. parameters: by name. body: SQL with places."""

    name: str
    sentence: str
    definition: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    example: str
    body: str


@cache
def questions() -> Mapping[str, Question]:
    """All of them, by name."""
    return {file.stem: read_question(file.stem, file.read_text(encoding="utf-8")) for file in sorted(_FOLDER.glob("*.sql"))}


def question(name: str) -> Question:
    """Raises UnknownQuestion."""
    known = questions()
    if name not in known:
        raise UnknownQuestion(f"no question {name!r}: {_meant(name, known)}")
    return known[name]


def ask_query(name: str, given: Given, now: datetime) -> Query:
    """The question as SQL for `user_sql.run`; given: parameters as text, filters as `dimension=value` or several of them.

    Raises UnknownQuestion, BadParameter.
    """
    return fill(question(name), given, now)


def read_question(name: str, text: str) -> Question:
    """A file of attribution/questions. Raises ValueError where its head isn't as it should be."""
    lines = text.splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("--"))
    sections: dict[str, list[str]] = {"": []}
    section = ""
    for line in (line.removeprefix("--").strip() for line in lines[:end]):
        begins = re.fullmatch(r"(definition|parameters|example):(.*)", line)
        section = begins[1] if begins else section
        sections.setdefault(section, []).append(begins[2].strip() if begins else line)
    if missing := {"definition", "parameters", "example"} - sections.keys():
        raise ValueError(f"{name}: no section {', '.join(sorted(missing))}")
    parameters = [_read_parameter(name, item) for item in _items(sections["parameters"])]
    figures = (item.partition(": ") for item in _items(sections["definition"]))
    return Question(
        name=name,
        sentence=" ".join(filter(None, sections[""])),
        definition={figure: meaning for names, _, meaning in figures for figure in names.split(", ")},
        parameters={parameter.name: parameter for parameter in parameters},
        example=" ".join(filter(None, sections["example"])),
        body="\n".join(lines[end:]).strip(),
    )


def fill(asked: Question, given: Given, now: datetime) -> Query:
    """Raises BadParameter."""
    for name in given:
        if name not in asked.parameters:
            raise BadParameter(name, f"{asked.name} has no such parameter: {_meant(name, asked.parameters)}")
    now_ns = nanoseconds(now)
    texts = {name: _given(parameter, given.get(name)) for name, parameter in asked.parameters.items()}
    times = {name: _time(name, texts[name][-1], now_ns) for name, one in asked.parameters.items() if one.kind == "time"}
    params: dict[str, Any] = {"now": utc_text(now_ns)} | {name: utc_text(at) for name, at in times.items()}
    for name, parameter in asked.parameters.items():
        if parameter.kind in _CHECKS:
            params[name] = _CHECKS[parameter.kind](parameter, texts[name][-1])
    if times.keys() >= {"since", "until"} and times["since"] >= times["until"]:
        raise BadParameter("since", "it isn't before `until`")

    def place(found: re.Match[str]) -> str:
        name, what = found.groups()
        if name == "period":
            return f"({period(times['since'], times['until'], params, 'period_')})"
        if name == "before":
            return f"({period(max(0, 2 * times['since'] - times['until']), times['since'], params, 'before_')})"
        if what:
            return "".join(f"{item}, " for item in _dimensions(asked.parameters[name], texts[name][-1], what, params))
        return _filters(asked.parameters[name], texts[name], params)

    text = _PLACE.sub(place, asked.body)
    return Query(text, {name: value for name, value in params.items() if f"{{{name}:" in text})


def _items(lines: Sequence[str]) -> Iterator[str]:
    joined = " ".join(filter(None, lines))
    return (item.strip() for item in re.split(r"(?:^| )\* ", joined) if item.strip())


def _read_parameter(question_name: str, item: str) -> Parameter:
    found = _PARAMETER.fullmatch(item)
    if found is None:
        raise ValueError(f"{question_name}: no parameter: {item}")
    name, kind, choices, default, meaning = found.groups()
    read: Kind = next(known for known in get_args(Kind) if known == kind)
    return Parameter(
        name, read, None if default is None else default.strip().strip("'"), meaning, tuple(choices.split("|")) if choices else ()
    )


def _given(parameter: Parameter, value: str | Sequence[str] | None) -> Sequence[str]:
    """At least one text, but for filters."""
    texts = [value] if isinstance(value, str) else list(value or ())
    if parameter.kind == "filters":
        return texts
    if len(texts) > 1:
        raise BadParameter(parameter.name, "it is given more than once")
    if not texts and parameter.default is None:
        raise BadParameter(parameter.name, f"it must be given: {parameter.meaning}")
    return texts or [parameter.default or ""]


def _time(name: str, text: str, now_ns: int) -> int:
    if text == "end of today":
        return end_of_day(now_ns)
    try:
        return moment(text.strip(), now_ns)
    except ValueError as error:
        raise BadParameter(name, str(error)) from None


def _count(parameter: Parameter, text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST:
        raise BadParameter(parameter.name, f"{text!r} is no whole number from 0 to {_LARGEST:,}")
    return text


def _number(parameter: Parameter, text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or abs(value) > _LARGEST:
        raise BadParameter(parameter.name, f"{text!r} is no number")
    return f"{value:f}"


def _choice(parameter: Parameter, text: str) -> str:
    if text not in parameter.choices:
        raise BadParameter(parameter.name, f"{text!r} is no choice: {_meant(text, parameter.choices)}")
    return text


_CHECKS: Final[Mapping[Kind, Callable[[Parameter, str], str]]] = {
    "count": _count,
    "number": _number,
    "choice": _choice,
    "text": lambda _, text: text,
}
"""Kind → the value that binds, of the text that was given."""


def _dimensions(parameter: Parameter, text: str, what: str, params: dict[str, Any]) -> list[str]:
    names = list(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if not names:
        raise BadParameter(parameter.name, "nothing to group by; `total` is one row of everything")
    if names == ["total"]:
        return []
    return [
        quoted(name) if what == "names" else f"{_dimension(parameter, name, f'{parameter.name}_{at}', params)} AS {quoted(name)}"
        for at, name in enumerate(names)
    ]


def _dimension(parameter: Parameter, name: str, tag_param: str, params: dict[str, Any]) -> str:
    offered = parameter.choices
    if offered and name not in offered and not ("tag:" in offered and name.startswith("tag:")):
        raise BadParameter(parameter.name, f"no dimension {name!r}: {_meant(name, offered)}")
    if name in offered and name not in DIMENSIONS:
        return quoted(name)
    try:
        return expression(name, tag_param, params)
    except UnknownDimension as error:
        raise BadParameter(parameter.name, str(error)) from None


def _filters(parameter: Parameter, texts: Sequence[str], params: dict[str, Any]) -> str:
    conditions = []
    for at, text in enumerate(texts):
        dimension, equals, value = text.partition("=")
        if not equals:
            raise BadParameter(parameter.name, f"{text!r} isn't DIMENSION=VALUE")
        params[f"{parameter.name}_{at}"] = value
        sql = _dimension(parameter, dimension, f"{parameter.name}_tag_{at}", params)
        conditions.append(f"toString({sql}) = {{{parameter.name}_{at}:String}}")
    return f"({' AND '.join(conditions) or 'true'})"


def _meant(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
