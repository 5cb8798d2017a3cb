"""A section of the configuration file, and what is wrong with it by line and field."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

if TYPE_CHECKING:
    import yaml

Loc = tuple[int | str, ...]


class ConfigFileError(ValueError):
    """The section can't be used. Each of `problems` says where, what is wrong, and what to write instead."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Document(NamedTuple):
    """A parsed file."""

    content: Mapping[str, Any]
    root: "yaml.Node | None"

    def line(self, loc: Loc) -> int | None:
        """The line of the deepest node on the way to `loc` that exists."""
        import yaml

        node, line = self.root, None
        for step in loc:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == step), None)
                if pair is None:
                    break
                node, line = pair[1], pair[0].start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
        return line


def read(text: str, file: str, section: str, reference: str) -> Document:
    """The text of a YAML file of which `section` is to be used; keys that stand twice in other sections are let be.

    Raises ConfigFileError.
    """
    import yaml  # a service that estimates costs by the public list alone has none

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        repeated = list(_repeated_keys(root, within=section))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigFileError([f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if repeated:
        raise ConfigFileError([f"{file}:{line}: `{key}` is there twice in the same place: keep one" for key, line in repeated])
    if not isinstance(content, dict):
        raise ConfigFileError([f"{file}: expected a mapping with the key `{section}`, see {reference}"])
    return Document(content, root)


def problems_of(
    error: ValidationError, model: type[BaseModel], section: Loc, file: str, line_of: Callable[[Loc], int | None]
) -> list[str]:
    """What is wrong with `section`, which should have been a `model`: `file:line: field: what to write`."""
    problems = []
    for detail in error.errors(include_url=False):
        loc = (*section, *detail["loc"])
        line = line_of(loc)
        problems.append(f"{file}{f':{line}' if line else ''}: {_dotted(loc)}: {_advice(detail, model, section)}")
    return problems


def _dotted(loc: Loc) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _advice(detail: ErrorDetails, model: type[BaseModel], section: Loc) -> str:
    field = str((*section, *detail["loc"])[-1])
    if detail["type"] == "extra_forbidden":
        known = _fields_at(detail["loc"][:-1], model)
        near = difflib.get_close_matches(field, known, 1)
        return f"unknown field; did you mean `{near[0]}`?" if near else f"unknown field; known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"is missing: add `{field}`"
    if detail["type"] == "string_pattern_mismatch":
        return "three capital letters such as EUR" if field == "currency" else "a name without spaces or commas"
    return f"{detail['msg'].removeprefix('Value error, ')} (found {detail['input']!r:.60})"


def _fields_at(loc: Loc, model: type[BaseModel]) -> list[str]:
    """Names of the fields of the part at `loc`, by following the declared types."""
    part = model
    for step in loc:
        if isinstance(step, str) and step in part.model_fields:
            declared = part.model_fields[step].annotation
            part = next((t for t in (declared, *get_args(declared)) if isinstance(t, type) and issubclass(t, BaseModel)), part)
    return [field.alias or name for name, field in part.model_fields.items()]


def _repeated_keys(node: Any, within: str | None = None) -> Iterator[tuple[str, int]]:
    """(key, line) of mapping keys that YAML would silently let the last one win of. within: of deeper keys, only those of this part."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            if within in {None, key.value}:
                yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
