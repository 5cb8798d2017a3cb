"""Rules: whom a request is for, read from its headers, path, query or token. In a TOML file or in code, in the same words.

    [[rule]]
    set = "customer"
    jwt = "org.id"

Of a rule that can't be understood it is said what is wrong with it; the others count.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from tallystick.collectors.carriers.baggage import MAX_VALUE, is_attribution
from tallystick.collectors.failures import warn_once
from tallystick.schema import names

if TYPE_CHECKING:
    from tallystick.collectors.carriers.incoming import Head

SOURCES: Final = ("header", "path", "pattern", "query", "jwt", "value")
WORDS: Final = ("set", *SOURCES, "match", "map")

MAX_READ: Final = 8192
"""Characters of a path, a query or a token that are looked at."""

Read = Callable[["Head"], str | None]


class BadRule(ValueError):
    """Why a rule can't be understood."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One attribute of a request's scope, and where it is read."""

    attribute: str
    """Its name on spans, `tallystick.customer`."""
    read: Read
    match: str = ""
    """The rule is for paths that are this or below it; empty: for all."""
    map: Mapping[str, str] | None = None
    """What is read → what it says. What isn't in it says nothing."""

    def value(self, head: "Head") -> str | None:
        """What the rule says of a request, None where it says nothing."""
        if self.match and not _is_below(head.path, self.match):
            return None
        if not (found := (self.read(head) or "").strip()):
            return None
        if self.map is not None:
            return self.map.get(found)
        return found[:MAX_VALUE].encode(errors="replace").decode()


def rule(words: Mapping[str, Any]) -> Rule:
    """A rule from its words: `set` (`customer`, …, or `tag.NAME`), one of SOURCES, and `match` and `map` if given. Raises BadRule.

    * `header`: a header's value.
    * `path`: a template such as `/v1/{customer}/chats`, the beginning of a path in whole segments. The segment in braces named
      as in `set` (of a tag: NAME) is the value, other names in braces stand for any segment.
    * `pattern`: a regular expression searched for in the path; the value is its group of that name, or its first.
    * `query`: a parameter of the query.
    * `jwt`: a claim of the bearer token, inner ones with dots, or of the token in `header` if that is given too. The token is
      decoded and NOT verified: whoever verifies it comes after, or before, this.
    * `value`: the same for each request, or each that `match` is for.
    """
    if unknown := [str(word) for word in words if word not in WORDS]:
        raise BadRule(f"unknown: {', '.join(unknown)}; a rule has {', '.join(WORDS)}")
    for word, given in words.items():
        if word == "map":
            if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
                raise BadRule("map isn't a table of texts")
        elif not isinstance(given, str) or not given:
            raise BadRule(f"{word} isn't a text")
    if "set" not in words:
        raise BadRule('set is missing: "customer", "feature", "agent", "team", "user", "session" or "tag.NAME"')
    attribute = f"tallystick.{words['set']}"
    if not is_attribution(attribute):
        raise BadRule(f"set = {words['set']!r} is none of customer, feature, agent, team, user, session, tag.NAME")
    sources = [word for word in SOURCES if word in words]
    if sources not in ([source] for source in SOURCES) and sources != ["header", "jwt"]:
        raise BadRule(f"a value comes from one of {', '.join(SOURCES)}, here from {' and '.join(sources) or 'none'}")
    mapped = words.get("map")
    return Rule(attribute, _reader(words, attribute), words.get("match", ""), dict(mapped) if mapped is not None else None)


def rules(listed: Iterable[Any], where: str) -> tuple[Rule, ...]:
    """Those of `listed` that can be understood; of each other one a warning says what is wrong, and `where`."""
    found: list[Rule] = []
    for number, words in enumerate(listed, 1):
        try:
            if not isinstance(words, Mapping):
                raise BadRule("it is no table")
            found.append(rule(words))
        except BadRule as problem:
            warn_once(f"{where} {number}", f"{where}: rule {number} is left out: {problem}")
    return tuple(found)


def rules_of_file(path: str) -> tuple[Rule, ...]:
    """Of a TOML file with `[[rule]]` tables. None, and a warning, where it can't be read."""
    import tomllib

    where = f"scope rules in {path}"
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        said = problem.strerror if isinstance(problem, OSError) else str(problem)
        warn_once(where, f"{where}: {said}; there are no rules, scopes come from code and baggage alone")
        return ()
    if strange := [name for name in document if name != "rule"]:
        warn_once(f"{where} names", f"{where}: {', '.join(strange)} means nothing here; rules are [[rule]]")
    listed = document.get("rule", [])
    return rules(listed if isinstance(listed, list) else [listed], where)


def _reader(words: Mapping[str, Any], attribute: str) -> Read:
    if "jwt" in words:
        return _claim(words["jwt"], words.get("header", "authorization").lower())
    if header := words.get("header"):
        lower = header.lower()
        return lambda head: head.header(lower)
    if parameter := words.get("query"):
        return lambda head: next(iter(parse_qs(head.query[:MAX_READ]).get(parameter, ())), None)
    if "value" in words:
        constant: str = words["value"]
        return lambda _: constant
    name = attribute.removeprefix(names.TAG_PREFIX).removeprefix("tallystick.")
    expression = _template(words["path"], name) if "path" in words else words["pattern"]
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise BadRule(f"pattern is no regular expression: {error}") from None
    if not compiled.groups:
        raise BadRule(f"pattern has no group, such as (?P<{name}>[^/]+)")
    group = name if name in compiled.groupindex else 1
    return lambda head: found[group] if (found := compiled.search(head.path[:MAX_READ])) else None


def _template(path: str, name: str) -> str:
    """A regular expression with one group: `/v1/{customer}` → `^/v1/([^/]+)(?:/|$)`."""
    if not path.startswith("/"):
        raise BadRule(f"path = {path!r} doesn't begin with /")
    segments = path.strip("/").split("/")
    if segments.count("{" + name + "}") != 1:
        raise BadRule(f"path = {path!r} has no segment {{{name}}}, or several")
    parts = [
        "([^/]+)" if segment == "{" + name + "}" else "[^/]+" if re.fullmatch(r"\{.*\}", segment) else re.escape(segment)
        for segment in segments
    ]
    return "^/" + "/".join(parts) + "(?:/|$)"


def _claim(claim: str, header: str) -> Read:
    def read(head: "Head") -> str | None:
        token = head.header(header).strip()
        scheme, _, rest = token.partition(" ")
        if rest and scheme.lower() == "bearer":
            token = rest.strip()
        parts = token.split(".")
        if len(parts) != 3 or len(token) > MAX_READ:
            return None
        try:
            value: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (ValueError, RecursionError):
            return None
        # A claim's own name may have dots: https://example.com/org
        if isinstance(value, dict) and claim in value:
            value = value[claim]
        else:
            for step in claim.split("."):
                value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return str(value).lower()
        return str(value) if isinstance(value, str | int | float) else None

    return read


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")
