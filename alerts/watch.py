"""Rules beside budgets, looked at: what is found is said once, and once more when it is over. What is open stands in the alert ledger."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from tallystick.alerts.compose import subject
from tallystick.alerts.config_rules import Rule
from tallystick.alerts.lease import Fence
from tallystick.alerts.ledger import Ledger, Revision
from tallystick.alerts.model import Key, Kind, Mark, Message
from tallystick.alerts.rules import Finding, Open, due, look, settle
from tallystick.alerts.spend import Ask

log = logging.getLogger(__name__)

OVER: Final = ":over"
"""What the mark of something that is over ends in."""

_WHAT: Final = {
    "anomaly": "unlike the same hour of other weeks",
    "latency": "first tokens come too late",
    "cost_per_success": "a success costs too much",
    "no_data": "no calls arrive",
    "unpriced": "tokens without a price",
    "probe_regression": "worse than in the runs before",
}
_NOT_JUDGED: Final = {"notify", "owners", "quiet_hours"}


def rule_fingerprint(rule: Rule) -> str:
    """Sixteen hex digits that change with what a rule looks for, and only with it."""
    meaning = rule.model_dump(mode="json", exclude=_NOT_JUDGED)
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Look:
    """One look at a rule."""

    rule: Rule
    revision: int
    now: datetime
    fence: Fence


class Watch:
    """Looks at each rule when a look can find something new. One that fails is logged and holds up no other."""

    def __init__(self, ledger: Ledger, ask: Ask, links: Mapping[str, str]) -> None:
        self._ledger, self._ask, self._links = ledger, ask, links
        self._looked: dict[str, datetime] = {}
        self._failing: dict[str, str] = {}
        self._noted: dict[str, list[str]] = {}

    def look(self, rules: Sequence[Rule], revisions: Mapping[str, Revision], now: datetime, fence: Fence) -> tuple[int, int]:
        """How many rules were looked at, and how many messages entered. Raises LedgerError."""
        waiting = [rule for rule in rules if due(rule, self._looked.get(rule.name), now)]
        if not waiting:
            return 0, 0
        standing = self._ledger.standing([rule.name for rule in waiting], over=OVER)
        said = 0
        for rule in waiting:
            self._looked[rule.name] = now
            findings = self._found(rule, now)
            if findings is not None:
                one = _Look(rule, revisions[rule.name].number, now, fence)
                said += self._settle(one, findings, standing.get(rule.name, ()))
        return len(waiting), said

    def _found(self, rule: Rule, now: datetime) -> list[Finding] | None:
        try:
            notes: list[str] = []
            findings = look(self._ask, rule, now, notes.append)
        except Exception as error:
            told = type(error).__name__
            if self._failing.get(rule.name) != told:
                log.exception("rule %s can't be looked at: %s", rule.name, told)
            self._failing[rule.name] = told
            return None
        self._failing.pop(rule.name, None)
        for one in notes:
            if one not in self._noted.get(rule.name, ()):
                log.info("rule %s: %s", rule.name, one)
        self._noted[rule.name] = notes
        return findings

    def _settle(self, one: _Look, findings: Sequence[Finding], standing: Sequence[Mark]) -> int:
        open_ = {Open(mark.key.value, mark.key.mark): mark for mark in standing}
        change = settle(findings, open_.keys())
        kept = {Open(finding.value, finding.mark) for finding in findings} | set(change.over)
        # Another finding of the value has taken its place: it ends without a word.
        if replaced := [_over(mark, one.now, said=False) for key, mark in open_.items() if key not in kept]:
            self._ledger.carry(replaced, fence=one.fence)
        said = 0
        for finding in change.new:
            key = Key(one.rule.name, one.revision, finding.since, finding.value, finding.mark)
            mark = Mark(key, finding.usual, finding.observed, Decimal(0), one.now, said=True)
            said += self._say(one, mark, Kind.RULE, finding.reason)
        for mark in (open_[key] for key in change.over):
            reason = f"What was said at {mark.at:%Y-%m-%d %H:%M} UTC holds no longer."
            said += self._say(one, _over(mark, one.now, said=True), Kind.RESOLVED, reason)
        return said

    def _say(self, one: _Look, mark: Mark, kind: Kind, reason: str) -> bool:
        quiet = one.rule.quiet_hours
        silences = self._ledger.silences.active_silences(one.now)
        return self._ledger.announce(
            [mark],
            _message(one.rule, mark.key, kind, reason, at=one.now, links=self._links),
            one.rule.notify,
            now=one.now,
            fence=one.fence,
            not_before=quiet.end_after(one.now, one.rule.timezone) if quiet else None,
            silence=next((silence for silence in silences if silence.covers(mark.key)), None),
        )


def _over(mark: Mark, now: datetime, *, said: bool) -> Mark:
    key = mark.key
    end = Key(key.subject, key.revision, key.period_start, key.value, f"{key.mark}{OVER}")
    return Mark(end, mark.amount, mark.spent, mark.corrections, now, said)


def _message(rule: Rule, key: Key, kind: Kind, reason: str, *, at: datetime, links: Mapping[str, str]) -> Message:
    over = kind is Kind.RESOLVED
    scope = {dimension: ", ".join(values) for dimension, values in rule.scope.items()}
    each = getattr(rule, "each", None)
    return Message(
        kind=kind,
        key=key,
        title=f"{subject(rule.name, key.value)}: {'over: ' if over else ''}{_WHAT.get(rule.type, rule.type)}",
        reason=reason,
        at=at,
        severity="info" if over else "warning",
        scope=scope | ({each: key.value} if each else {}),
        owners=rule.owners,
        links=links,
    )
