"""One evaluation: read what is spent, decide, and enter what is to be said. Everything it knows comes from the two ledgers and the clock."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from tallystick.alerts.behind import sql_behind
from tallystick.alerts.compose import budget_message
from tallystick.alerts.config import Config
from tallystick.alerts.config_budgets import Budget, fingerprint
from tallystick.alerts.decide import Announcement, decide
from tallystick.alerts.drivers import Announced, Details, details
from tallystick.alerts.forecast import forecast
from tallystick.alerts.in_force import Known, judged
from tallystick.alerts.lease import EVALUATOR, Fence, Fenced
from tallystick.alerts.ledger import Ledger, Revision
from tallystick.alerts.model import Forecast, Mark, Period, Spend
from tallystick.alerts.periods import previous
from tallystick.alerts.spend import Ask, Wanted, history, spends
from tallystick.alerts.watch import Watch, rule_fingerprint

log = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=60)
"""How long others wait for an evaluator that doesn't come back: much longer than a tick, shorter than anybody's patience."""

KEPT: Final = timedelta(days=400)
"""How long marks and deliveries are kept: longer than the longest period, a year."""

_DETAILED: Final = 50
"""Messages of one tick that tell what drives them: each takes queries of its own."""

_PRUNE_EVERY: Final = timedelta(days=1)

Steps = Mapping[datetime, Decimal]
MarkedValue = tuple[str, datetime, str]
"""Budget, start of the period, value."""


@dataclass(frozen=True)
class Ticked:
    """What one evaluation did. judged: budgets' values in their periods, and rules; said: messages entered."""

    at: datetime
    duration: timedelta
    judged: int
    said: int


@dataclass(frozen=True)
class _Case:
    """One budget's value in one of its periods."""

    budget: Budget
    revision: int
    wanted: Wanted
    spend: Spend

    @property
    def period(self) -> Period:
        return self.wanted.period

    @property
    def key(self) -> MarkedValue:
        return self.budget.name, self.period.start, self.spend.value


@dataclass
class _Findings:
    """What the decisions of a tick come to."""

    announcements: list[tuple[_Case, Announcement, tuple[Mark, ...]]] = field(default_factory=list)
    silent: list[Mark] = field(default_factory=list)


class Evaluator:
    """Judges all budgets, in one thread. Of several replicas, the one that holds the lease.

    ask: answers queries of all tenants' charges. holder: this replica's name. page: where people look, for links; None: no links.
    kept: for how long calls are kept; a period that has lost some since it ended isn't judged, for it seems to have been corrected.
    """

    def __init__(
        self,
        ledger: Ledger,
        ask: Ask,
        config: Config,
        *,
        holder: str,
        author: str,
        page: str | None = None,
        kept: timedelta | None = None,
    ) -> None:
        self._ledger, self._ask, self._holder, self._author = ledger, ask, holder, author
        self._links = {"Costs": page} if page else {}
        self._watch = Watch(ledger, ask, self._links)
        self._config, self._kept = config, kept
        self._authors: Mapping[str, str] = {}
        self._revisions: dict[str, list[Revision]] | None = None
        self._fence: Fence | None = None
        self._pruned: datetime | None = None

    def use(self, config: Config, authors: Mapping[str, str] | None = None) -> None:
        """Judge by this from the next tick on. authors: of budgets that the author of all others didn't define."""
        self._config, self._revisions, self._authors = config, None, authors or {}

    def tick(self, now: datetime, *, elapsed: Callable[[], float] = time.monotonic) -> Ticked | None:
        """None: another replica has the lease. Raises LedgerDown, and what `ask` raises; what was entered until then isn't said again."""
        began = elapsed()
        if not self._hold(now):
            return None
        assert self._fence is not None
        try:
            config, revisions = self._config, self._revised(now)
            last = self._ledger.last_tick()
            wanted = self._wanted(config.budgets, revisions, last.at if last else None, now)
            marks = self._ledger.marks({one.period.start for _, _, one in wanted})
            cases = self._cases(wanted, marks)
            findings = self._judge(cases, marks, now)
            said = self._say(findings, now)
            looked, found = self._watch.look(config.rules, {name: past[-1] for name, past in revisions.items()}, now, self._fence)
            duration = timedelta(seconds=elapsed() - began)
            self._ledger.ticked(now, duration, self._fence)
            self._prune(now)
        except Fenced:
            log.info("another evaluator has taken over")
            self._fence = None
            return None
        return Ticked(now, duration, len(cases) + looked, said + found)

    def release(self, now: datetime) -> None:
        """Let another replica take over at once."""
        if self._fence is not None:
            self._ledger.leases.release(self._fence, now)
            self._fence = None

    def _hold(self, now: datetime) -> bool:
        if self._fence is None or not self._ledger.leases.renew(self._fence, LEASE, now):
            self._fence = self._ledger.leases.acquire(EVALUATOR, self._holder, LEASE, now)
        return self._fence is not None

    def _revised(self, now: datetime) -> Mapping[str, Sequence[Revision]]:
        """The revisions of each budget and rule, the present one last; a definition that changed gets a new one."""
        if self._revisions is None:
            known = self._ledger.histories()
            defined = [(one, fingerprint(one)) for one in self._config.budgets]
            for one, mark in (*defined, *((rule, rule_fingerprint(rule)) for rule in self._config.rules)):
                past = known.setdefault(one.name, [])
                if not past or past[-1].fingerprint != mark:
                    definition = json.dumps(one.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
                    author = self._authors.get(one.name, self._author)
                    number = self._ledger.revise(one.name, mark, definition, now, author)
                    past.append(Revision(one.name, number, mark, definition, author, now))
            self._revisions = known
        return self._revisions

    def _wanted(
        self, budgets: Sequence[Budget], revisions: Mapping[str, Sequence[Revision]], last: datetime | None, now: datetime
    ) -> list[tuple[Budget, int, Wanted]]:
        known: Known = {}
        return [
            (defined, number, Wanted(defined.name, period, defined.scope, defined.each, defined.measure))
            for budget in budgets
            for defined, number, period in judged(budget, revisions[budget.name], last, now, known)
            if self._kept is None or now < period.end or period.start > now - self._kept
        ]

    def _cases(self, wanted: Sequence[tuple[Budget, int, Wanted]], marks: Mapping[MarkedValue, Sequence[Mark]]) -> list[_Case]:
        found = spends(self._ask, [one for _, _, one in wanted])
        spoken_of: dict[tuple[str, datetime], set[str]] = {}
        for name, start, value in marks:
            spoken_of.setdefault((name, start), set()).add(value)
        cases = []
        for budget, revision, one in wanted:
            some = found.get(one.key, ())
            # A value that was spoken of and has nothing left is still to be corrected.
            gone = spoken_of.get(one.key, set()) - {spend.value for spend in some}
            cases += [
                _Case(budget, revision, one, spend)
                for spend in (*some, *(Spend(value, Decimal(0), Decimal(0), 0, 0, 0, 0) for value in sorted(gone)))
            ]
        return cases

    def _judge(self, cases: Sequence[_Case], marks: Mapping[MarkedValue, Sequence[Mark]], now: datetime) -> _Findings:
        foreseeing = {case.wanted.key: case.wanted for case in cases if case.budget.foresees}
        steps = history(self._ask, list(foreseeing.values()))
        findings = _Findings()
        for case in cases:
            known = marks.get(case.key, ())
            if self._overtaken(case, known):
                continue
            foreseen = self._forecast(case, steps, now) if case.wanted.key in steps else None
            decision = decide(case.budget, case.revision, case.period, case.spend, forecast=foreseen, marks=known, now=now)
            if decision.say is not None:
                findings.announcements.append((case, decision.say, decision.marks))
            else:
                findings.silent += decision.marks
        return findings

    def _overtaken(self, case: _Case, marks: Iterable[Mark]) -> bool:
        """Whether a former definition comes to a period that a newer one has judged, under a clock that was ahead."""
        assert self._revisions is not None
        former = case.revision != self._revisions[case.budget.name][-1].number
        return former and any(one.key.revision > case.revision for one in marks)

    @staticmethod
    def _forecast(case: _Case, steps: Mapping[tuple[str, datetime], Mapping[str, Steps]], now: datetime) -> Forecast | None:
        spent = case.spend.of(case.budget.measure)
        return forecast(case.period, now, spent, steps[case.wanted.key].get(case.spend.value, {}))

    def _say(self, findings: _Findings, now: datetime) -> int:
        assert self._fence is not None
        if findings.silent:
            self._ledger.carry(findings.silent, fence=self._fence)
        if not findings.announcements:
            return 0
        wanted = list({case.wanted.key: case.wanted for case, _, _ in findings.announcements}.values())
        steps = history(self._ask, wanted)
        told = self._details([case for case, _, _ in findings.announcements], now)
        silences = self._ledger.silences.active_silences(now)
        said = 0
        for case, say, marks in findings.announcements:
            message = budget_message(
                case.budget,
                case.period,
                case.spend,
                say,
                now,
                forecast=self._forecast(case, steps, now),
                details=told.get(case.key),
                links=self._links,
                sql=sql_behind(case.wanted, case.spend.value),
            )
            silence = next((one for one in silences if one.covers(message.key)), None)
            said += self._ledger.announce(
                marks, message, say.channels, now=now, fence=self._fence, not_before=say.not_before, silence=silence
            )
        return said

    def _details(self, cases: Sequence[_Case], now: datetime) -> dict[MarkedValue, Details]:
        """Of the dearest. A message without them is better than none: whatever goes wrong here is logged, and they are left out."""
        dearest = sorted(cases, key=lambda case: -case.spend.cost)[:_DETAILED]
        announced = [
            Announced(case.wanted, case.spend.value, previous(case.budget.periods, case.period)) for case in dearest
        ]  # fmt: skip
        try:
            return dict(zip((case.key for case in dearest), details(self._ask, announced, now), strict=True))
        except Exception:
            log.exception("what drives %d budgets can't be told", len(dearest))
            return {}

    def _prune(self, now: datetime) -> None:
        if self._pruned is None or now - self._pruned >= _PRUNE_EVERY:
            self._ledger.prune(now - KEPT)
            self._pruned = now
