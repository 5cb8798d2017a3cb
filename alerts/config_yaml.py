"""A YAML file as texts with their places, and `${NAME}` filled from the environment.

Scalars stay the text that was written, for YAML 1.1 would read `no` as false, `007` as 7 and `22:00` as 1320; only null is None.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_NODES: Final = 500_000

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DEEPEST: Final = 50
_NOWHERE: Final = yaml.Mark("", 0, -1, -1, None, 0)

Loc = tuple[int | str, ...]

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_UNQUOTED: Final = re.compile(r"[:\[,{]\s*\$\{")


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong with the configuration, where, and what to write instead. Shows no value that was entered.

    Line and column count from 1; they are 0 of what came as JSON.
    """

    file: str
    line: int
    column: int
    field: str
    """`budgets[0].amount`"""
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.field}: {self.text}" if self.field else f"{where}: {self.text}"


class ConfigError(ValueError):
    """Nothing of the configuration can be used, or not all of it where all was asked for."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass
class Document:
    """The content of a file: mappings, lists, texts and None, with the place of each."""

    file: str
    value: Any = None
    problems: dict[Loc, Problem] = field(default_factory=dict)
    """Keys that stand twice, variables that aren't set."""
    _places: dict[Loc, yaml.Mark] = field(default_factory=dict)
    _keys: dict[Loc, yaml.Mark] = field(default_factory=dict)

    def problem(self, loc: Loc, text: str, *, at_key: bool = False) -> Problem:
        """A problem at `loc`; steps that the file doesn't have, as validation adds some, are passed over."""
        here: Loc = ()
        for step in loc:
            if (*here, step) in self._places:
                here = (*here, step)
        mark = self._keys.get(here, self._places[here]) if at_key else self._places[here]
        missing = loc[-1:] if loc and here == loc[:-1] and isinstance(loc[-1], str) else ()
        return Problem(self.file, mark.line + 1, mark.column + 1, _dotted((*here, *missing)), text)

    def has_problem_within(self, loc: Loc) -> bool:
        return any(found[: len(loc)] == loc for found in self.problems)


def read(text: str, file: str, environ: Mapping[str, str], *, filled: Callable[[Loc], bool]) -> Document:
    """filled: whether variables are filled in, and problems looked for, at a place. Raises ConfigError."""
    document = Document(file)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            document.value = _Reader(document, loader, environ, filled).value(root, ())
    except RecursionError:
        raise ConfigError((Problem(file, 1, 1, "", "is nested too deeply"),)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line, mark.column) if mark else (0, 0)
        hint = ""
        if any(_UNQUOTED.search(one) for one in text.splitlines()[max(0, line - 1) : line + 1]):
            hint = '; within { } and [ ] a variable needs quotes: "${NAME}"'
        told = getattr(error, "problem", None) or "has characters that YAML doesn't allow"
        raise ConfigError((Problem(file, line + 1, column + 1, "", f"not valid YAML: {told}{hint}"),)) from None
    return document


def document_of(value: Any, file: str) -> Document:
    """What came as JSON. Raises ConfigError."""
    document = Document(file, value)

    def place(value: Any, loc: Loc) -> None:
        if len(loc) > _DEEPEST:
            raise ConfigError((Problem(file, 0, 0, "", "is nested too deeply"),))
        document._places[loc] = _NOWHERE
        if any(isinstance(one, str) and _SURROGATE.search(one) for one in (value, *loc[-1:])):
            raise ConfigError((Problem(file, 0, 0, "", "has halves of characters: send UTF-8"),))
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for step, one in inner:
            place(one, (*loc, step))

    place(value, ())
    return document


class _Reader:
    def __init__(
        self, document: Document, loader: yaml.SafeLoader, environ: Mapping[str, str], filled: Callable[[Loc], bool]
    ) -> None:
        self._document = document
        self._loader = loader
        self._environ = environ
        self._filled = filled
        self._nodes = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ConfigError((Problem(self._document.file, 1, 1, "", f"has more than {MAX_NODES} values, aliases counted"),))
        self._document._places[loc] = node.start_mark
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:null":
            return None
        return self._fill(node, loc) if self._filled(loc) else node.value

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen and self._filled(loc):
                self._report((*loc, key.value), key, f"stands here twice, first in line {seen[key.value]}: keep one")
            seen[key.value] = key.start_mark.line + 1
        self._loader.flatten_mapping(node)
        value = {}
        for key, item in node.value:
            self._document._keys[(*loc, key.value)] = key.start_mark
            value[key.value] = self.value(item, (*loc, key.value))
        return value

    def _fill(self, node: yaml.Node, loc: Loc) -> str:
        for name in _VARIABLE.findall(node.value):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                self._report(loc, node, "names no environment variable: write ${NAME}, in letters, digits and _")
            elif name not in self._environ:
                self._report(loc, node, f"the environment variable `{name}` isn't set")
        return _VARIABLE.sub(lambda found: self._environ.get(found[1], ""), node.value)

    def _report(self, loc: Loc, node: yaml.Node, text: str) -> None:
        mark = node.start_mark
        self._document.problems[loc] = Problem(self._document.file, mark.line + 1, mark.column + 1, _dotted(loc), text)


def _dotted(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_shown(step)}" for step in loc).lstrip(".")


def _shown(key: str) -> str:
    # A key that is no word may be a secret in the wrong place.
    return key if re.fullmatch(r"[\w:. %-]{1,60}", key) else "…"
