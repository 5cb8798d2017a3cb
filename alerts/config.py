"""The configuration of alerts: `channels:`, `budgets:` and `rules:` of the file that `tallystick up --config FILE` takes.

What is wrong in one budget keeps that one out, not the others. Reference: docs/budgets.md.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tallystick.alerts.channels.open import BadChannel
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.config_channels import (
    ChannelConfig,
    EmailChannel,
    PagerDutyChannel,
    SlackChannel,
    StdoutChannel,
    TeamsChannel,
    WebhookChannel,
)
from tallystick.alerts.config_fields import QuietHours, did_you_mean
from tallystick.alerts.config_rules import (
    AnomalyRule,
    CostPerSuccessRule,
    LatencyRule,
    NoDataRule,
    ProbeRegressionRule,
    Rule,
    UnpricedRule,
)
from tallystick.alerts.config_yaml import ConfigError, Document, Loc, Problem, document_of, read

_SECTIONS: Final = ("prices", "allocations", "probes", "channels", "budgets", "rules")
_CHANNELS: Final[Mapping[str, type[ChannelConfig]]] = {
    "slack": SlackChannel, "webhook": WebhookChannel, "pagerduty": PagerDutyChannel, "teams": TeamsChannel, "email": EmailChannel,
    "stdout": StdoutChannel,
}  # fmt: skip
_RULES: Final[Mapping[str, type[Rule]]] = {
    "anomaly": AnomalyRule, "latency": LatencyRule, "cost_per_success": CostPerSuccessRule, "no_data": NoDataRule,
    "unpriced": UnpricedRule, "probe_regression": ProbeRegressionRule,
}  # fmt: skip
_Model = TypeVar("_Model", bound=BaseModel)
_CHANNEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True)
class Declared:
    """What a file names, also what of it can't be used: budgets made by API have to fit to it. Channels and names have their place: `line 3`."""

    channels: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """Of budgets and rules."""
    exchange_rates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """What can be used of a configuration, and what keeps the rest out. Warnings keep nothing out."""

    channels: Mapping[str, ChannelConfig] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    rules: tuple[Rule, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    declared: Declared = field(default_factory=Declared, repr=False)


def load_config(
    source: str | Path,
    environ: Mapping[str, str],
    *,
    folder: Path = Path(),
    open_channel: Callable[[str, ChannelConfig], object] = lambda *_: None,
) -> Config:
    """Of a text or a file. Every problem is found at once, and what has none is loaded.

    A channel that can't be used is left out of `notify`; a budget that nobody would hear of without it is left out with it.
    folder: where a text's templates are. open_channel: is called with each channel that is well formed, and raises BadChannel if it can't be used all the same.
    Raises ConfigError where no part can be told from another, OSError.
    """
    text, file, folder = (source, "configuration", folder) if isinstance(source, str) else _opened(source)
    document = read(text, file, environ, filled=lambda loc: loc[:1] not in {("prices",), ("allocations",), ("probes",)})
    return _Loading(document, folder, open_channel).config()


def with_budgets(config: Config, made: Mapping[str, str]) -> Config:
    """The configuration and budgets made by API, by name as JSON. What doesn't fit to the file, such as a name that it has, is a problem."""
    budgets, problems, warnings = list(config.budgets), list(config.problems), list(config.warnings)
    same = {_counted(budget): budget.name for budget in config.budgets}
    for name, body in made.items():
        budget, found = made_budget(config, name, json.loads(body))
        problems += found
        if budget is not None:
            budgets.append(budget)
            if (other := same.setdefault(_counted(budget), name)) != name:
                text = f"counts the same spend over the same periods as the budget {other}"
                warnings.append(Problem(_made(name), 0, 0, "", text))
    return replace(config, budgets=tuple(budgets), problems=tuple(problems), warnings=tuple(warnings))


def made_budget(config: Config, name: str, body: Mapping[str, Any]) -> tuple[Budget | None, tuple[Problem, ...]]:
    """A budget made by API, as far as it can be used beside the configuration, and all that is wrong with it."""
    try:
        document = document_of({**body, "name": name}, _made(name))
    except ConfigError as error:
        return None, error.problems
    loading = _Loading(document, Path(), lambda *_: None, config)
    found = loading.budget((), document.value)
    return (found[1] if found else None), tuple(sorted(loading.problems))


def _made(name: str) -> str:
    return f"budget {name} made by API"


def _opened(path: Path) -> tuple[str, str, Path]:
    try:
        return path.read_text(encoding="utf-8"), str(path), path.parent
    except UnicodeDecodeError:
        raise ConfigError((Problem(str(path), 1, 1, "", "is no text in UTF-8"),)) from None


class _Loading:
    """One reading of a document; problems gather as parts are looked at."""

    def __init__(
        self, document: Document, folder: Path, open_channel: Callable[[str, ChannelConfig], object], beside: Config | None = None
    ) -> None:
        self._document = document
        self._folder = folder
        self._open_channel = open_channel
        self.problems = [*document.problems.values()]
        self._channels: dict[str, ChannelConfig] = dict(beside.channels) if beside else {}
        declared = beside.declared if beside else self._declared()
        self._names, self._named, self._rates = dict(declared.names), declared.channels, declared.exchange_rates

    def config(self) -> Config:
        content = self._document.value
        if content is None:
            return Config()
        if not isinstance(content, dict):
            raise ConfigError((self._document.problem((), f"write a mapping with {', '.join(f'`{one}`' for one in _SECTIONS)}"),))
        for name in content.keys() - set(_SECTIONS):
            self._report((name,), f"unknown section; {did_you_mean(name, list(_SECTIONS))}", at_key=True)
        self._load_channels(content.get("channels"))
        budgets = [budget for loc, part in self._parts("budgets") if (budget := self.budget(loc, part))]
        rules = [rule for loc, part in self._parts("rules") if (rule := self._rule(loc, part))]
        return Config(
            self._channels,
            tuple(budget for _, budget in budgets),
            tuple(rules),
            tuple(sorted(self.problems)),
            tuple(sorted(self._overlaps(budgets))),
            Declared(self._named, self._names, self._rates),
        )

    def _declared(self) -> Declared:
        """Of the document; names are added as its parts are looked at."""
        content: dict[str, Any] = self._document.value if isinstance(self._document.value, dict) else {}
        channels, prices = content.get("channels"), content.get("prices")
        rates = prices.get("exchange_rates") if isinstance(prices, dict) else None
        return Declared(
            {name: self._place(("channels", name)) for name in channels} if isinstance(channels, dict) else {},
            {},
            rates if isinstance(rates, dict) else {},
        )

    def _place(self, loc: Loc) -> str:
        return f"line {self._document.problem(loc, '').line}"

    def _report(self, loc: Loc, text: str, *, at_key: bool = False) -> None:
        self.problems.append(self._document.problem(loc, text, at_key=at_key))

    def _parts(self, section: str) -> Iterator[tuple[Loc, dict[str, Any]]]:
        """The mappings of a list, with their places."""
        parts = self._document.value.get(section)
        if parts is None:
            return
        if not isinstance(parts, list):
            self._report((section,), "write a list: each entry begins with `- `")
            return
        for index, part in enumerate(parts):
            if isinstance(part, dict):
                yield (section, index), part
            else:
                self._report((section, index), "write a mapping such as `{name: …, notify: [team]}`")

    def _load_channels(self, section: object) -> None:
        if section is None:
            return
        if not isinstance(section, dict):
            self._report(("channels",), "write names with their channels: `team: {type: slack, url: …}`")
            return
        for name, part in section.items():
            loc = ("channels", name)
            if not _CHANNEL_NAME.fullmatch(name):
                self._report(loc, "name channels with letters, digits, `_`, `.` and `-`", at_key=True)
            elif isinstance(part, dict):
                if (channel := self._channel(loc, name, part)) is not None:
                    self._channels[name] = channel
            else:
                self._report(loc, "write a mapping such as `{type: slack, url: …}`")

    def _channel(self, loc: Loc, name: str, part: dict[str, Any]) -> ChannelConfig | None:
        kind = self._kind(loc, part, _CHANNELS)
        channel = self._validated(loc, part, kind) if kind else None
        if channel is None:
            return None
        if channel.template is not None:
            template = self._folder / channel.template
            if not template.is_file():
                self._report((*loc, "template"), "there is no such file beside the configuration")
                return None
            channel = channel.model_copy(update={"template": template})
        try:
            self._open_channel(name, channel)
        except BadChannel as error:
            self._report((*loc, error.field), error.reason)
            return None
        return channel

    def budget(self, loc: Loc, part: dict[str, Any]) -> tuple[Loc, Budget] | None:
        currency = part.get("currency")
        if isinstance(currency, str) and currency in self._rates:
            part = {"exchange_rate": self._rates[currency], **part}
        budget = self._validated(loc, part, Budget)
        usable = self._names_and_channels(loc, part)
        if budget is None or usable is None:
            return None
        notify = {mark: tuple(one for one in names if one in usable) for mark, names in budget.notify.items()}
        if any(names and not notify[mark] for mark, names in budget.notify.items()):
            self._report((*loc, "notify"), "is left out until a channel of it can be used: nobody would hear of it")
            return None
        return loc, budget.model_copy(update={"notify": notify})

    def _rule(self, loc: Loc, part: dict[str, Any]) -> Rule | None:
        kind = self._kind(loc, part, _RULES)
        rule = self._validated(loc, part, kind) if kind else None
        usable = self._names_and_channels(loc, part)
        if rule is None or usable is None:
            return None
        notify = tuple(one for one in rule.notify if one in usable)
        if rule.notify and not notify:
            self._report((*loc, "notify"), "is left out until a channel of it can be used: nobody would hear of it")
            return None
        return rule.model_copy(update={"notify": notify})

    def _kind(self, loc: Loc, part: dict[str, Any], kinds: Mapping[str, type[_Model]]) -> type[_Model] | None:
        word = part.get("type")
        if isinstance(word, str) and word in kinds:
            return kinds[word]
        if word is None:
            self._report(loc, f"is missing `type`: {', '.join(kinds)}")
        else:
            self._report((*loc, "type"), f"no such type; {did_you_mean(str(word), kinds)}")
        return None

    def _validated(self, loc: Loc, part: dict[str, Any], kind: type[_Model]) -> _Model | None:
        try:
            value = kind.model_validate(part)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                of_key = detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",)
                place = (*loc, *(step for step in detail["loc"] if step != "[key]"))
                if place not in self._document.problems:
                    self._report(place, _advice(detail, kind), at_key=of_key)
            return None
        return None if self._document.has_problem_within(loc) else value

    def _names_and_channels(self, loc: Loc, part: dict[str, Any]) -> set[str] | None:
        """The channels of `part` that can be used; None if its name is taken, or a channel isn't there at all."""
        sound = True
        name = part.get("name")
        if isinstance(name, str):
            if name in self._names:
                self._report((*loc, "name"), f"is taken by the one in {self._names[name]}: give each budget and rule its own")
                sound = False
            self._names.setdefault(name, self._place((*loc, "name")))
        usable = set()
        for place, channel in _named_channels((*loc, "notify"), part.get("notify")):
            if channel in self._channels:
                usable.add(channel)
            elif channel in self._named:
                self._report(place, f"the channel in {self._named[channel]} can't be used")
            else:
                self._report(place, f"no such channel; {did_you_mean(channel, self._named)}")
                sound = False
        return usable if sound else None

    def _overlaps(self, budgets: list[tuple[Loc, Budget]]) -> Iterator[Problem]:
        seen: dict[str, Loc] = {}
        for loc, budget in budgets:
            same = _counted(budget)
            if same in seen:
                text = f"counts the same spend over the same periods as the budget in {self._place(seen[same])}"
                yield self._document.problem(loc, text)
            seen.setdefault(same, loc)


def _counted(budget: Budget) -> str:
    """What budgets have in common that count the same spend over the same periods."""
    return json.dumps([budget.measure, repr(budget.periods), sorted(budget.scope.items()), budget.each])


def _named_channels(loc: Loc, notify: object) -> Iterator[tuple[Loc, str]]:
    """The channels that `notify` names, however it is written, with their places."""
    if isinstance(notify, str):
        yield loc, notify
    elif isinstance(notify, list):
        for index, one in enumerate(notify):
            if isinstance(one, str):
                yield (*loc, index), one
    elif isinstance(notify, dict):
        for key, names in notify.items():
            yield from _named_channels((*loc, key), names)


def _advice(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    """What to write instead, without what was written."""
    name = next((step for step in reversed(detail["loc"]) if isinstance(step, str)), "")
    problem = detail["type"]
    if problem == "extra_forbidden":
        part = QuietHours if "quiet_hours" in detail["loc"][:-1] else kind
        return f"unknown field; {did_you_mean(name, [one.alias or field for field, one in part.model_fields.items()])}"
    if problem == "missing":
        return f"is missing: {_HINTS[name]}" if name in _HINTS else "is missing"
    if problem in {"string_pattern_mismatch", "string_type", "tuple_type"} and name in _HINTS:
        return _HINTS[name]
    if problem in {"enum", "literal_error"}:
        return f"write {detail.get('ctx', {}).get('expected', 'another')}"
    return _PLAINER.get(problem) or detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


_PLAINER: Final = {
    "string_pattern_mismatch": "has characters that it can't have",
    "string_type": "write a text",
    "tuple_type": "write a list",
    "model_type": "write a mapping",
    "too_short": "write at least one",
}
_HINTS: Final = {
    "name": "write a name, without control characters or spaces around it",
    "amount": "write a number above 0",
    "period": "write hour, day, week, month or quarter",
    "notify": "write channels, `[team]`, or `[]` for what is only shown",
    "currency": "write three capital letters such as EUR",
    "url": "write an address that begins with https://",
    "owners": "write names",
    "to": "write an e-mail address",
    "from": "write an e-mail address",
}
