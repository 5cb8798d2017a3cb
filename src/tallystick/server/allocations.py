"""Allocations as they are asked for and told, over HTTP and on the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tallystick.attribution.allocation import CantAllocate, Plan, allocate, plan, runs
from tallystick.attribution.allocation_rules import AllocationRule, load_allocations
from tallystick.attribution.config_file import ConfigFileError
from tallystick.attribution.corrections import Corrections
from tallystick.attribution.months import period_named
from tallystick.attribution.spend import Ask, UnknownDimension
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.caged import LIMITS, caged
from tallystick.server.corrections import RunAnswer, refusals, run_answer
from tallystick.server.money import Money

_MOST_SHARES = 1_000
"""Who bears something, as an answer names them."""


class AllocationQuestion(BaseModel):
    """A rule's period. amount: USD, of a rule of kind amount. again: what stands for the period is undone first."""

    model_config = ConfigDict(extra="forbid")

    period: str = Field(description="A month, week or day of UTC.", examples=["2026-10", "2026-W42", "2026-10-05"])
    amount: Annotated[Decimal, Field(max_digits=24, decimal_places=12, allow_inf_nan=False)] | None = None
    reason: str = Field("", max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$", description="Empty: the rule's own.")
    again: bool = False
    dry_run: bool = Field(False, description="Say what would be entered, and enter nothing.")


class ShareAnswer(BaseModel):
    """What one bears in the whole period. who: values of the rule's dimensions."""

    tenant: str
    who: dict[str, str] = Field(examples=[{"customer": "acme"}])
    cost_usd: Money


class AllocationAnswer(BaseModel):
    """What was entered, or would be. how: how the amount comes about. lines: one a day and bearer. shares: the largest of `bearers`.

    correction: the run; null after a dry run. notes: what must be known to read it right.
    """

    rule: str
    period: str
    amount_usd: Money
    how: str
    dry_run: bool
    lines: int
    bearers: int
    shares: list[ShareAnswer]
    notes: list[str]
    correction: RunAnswer | None


class RuleAnswer(BaseModel):
    """A rule. definition: its entry in the configuration file."""

    name: str
    kind: str
    over: list[str]
    by: str
    period: str
    definition: dict[str, Any]
    warnings: list[str]


class AllocationsAnswer(BaseModel):
    """Rules of the configuration file, and what was allocated, the newest first."""

    rules: list[RuleAnswer]
    runs: list[RunAnswer]


class NotAllocated(PayloadError):
    """Nothing was entered."""


class AllocationDesk:
    """Takes questions, answers as the API does. Raises PayloadError, BadQuery.

    config: the configuration file, read again for each question. ask: sees all tenants.
    """

    def __init__(
        self, corrections: Corrections, ask: Ask, config: Path | None, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._corrections, self._ask, self._config = corrections, ask, config
        self._clock = clock or (lambda: datetime.now(UTC))

    def all(self) -> AllocationsAnswer:
        """Rules, and what was allocated."""
        rules = [_rule_answer(rule) for rule in self._rules()]
        return AllocationsAnswer(rules=rules, runs=[run_answer(made) for made in runs(self._corrections)])

    def allocate(self, name: str, question: AllocationQuestion, author: str) -> AllocationAnswer:
        """Enter what a rule comes to, or tell it."""
        with refusals(), _refused():
            rule, within = self._rule(name), period_named(question.period)

            def planned() -> Plan:
                return plan(self._ask, rule, within, amount=question.amount)

            if question.dry_run:
                return _answer(planned(), None)
            made, run = allocate(
                self._corrections, planned, reason=question.reason, author=author, now=self._clock(), again=question.again
            )
            return _answer(made, run_answer(run))

    def _rules(self) -> tuple[AllocationRule, ...]:
        with _refused():
            return load_allocations(self._config) if self._config else ()

    def _rule(self, name: str) -> AllocationRule:
        rules = {rule.name: rule for rule in self._rules()}
        if name in rules:
            return rules[name]
        close = get_close_matches(name, rules, 1)
        known = (
            f"there are {', '.join(rules)}"
            if rules
            else "`allocations:` of the configuration file has none, see docs/allocation.md"
        )
        hint = f"did you mean {close[0]}?" if close else known
        raise NotAllocated(404, "no_such_rule", f"There is no allocation rule {name[:100]!r}.", hint)


def base_ask(store: Store) -> Ask:
    """Questions of all tenants' rows, with as many groups as it takes: a day and bearer each."""
    return caged(store, None, limits={**LIMITS, "max_result_rows": 3_000_000, "max_result_bytes": 500_000_000})


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except CantAllocate as error:
        raise NotAllocated(400, "cant_allocate", f"{error.message}.", error.hint) from None
    except ConfigFileError as error:
        raise NotAllocated(400, "bad_rules", "; ".join(error.problems), "docs/allocation.md has every field.") from None
    except UnknownDimension as error:
        raise NotAllocated(400, "bad_rules", f"{error}", "Nothing was entered.") from None


def _rule_answer(rule: AllocationRule) -> RuleAnswer:
    return RuleAnswer(
        name=rule.name,
        kind=rule.kind,
        over=list(rule.over),
        by=rule.by,
        period=rule.period,
        definition=rule.model_dump(mode="json", exclude_defaults=True),
        warnings=list(rule.warnings),
    )


def _answer(made: Plan, run: RunAnswer | None) -> AllocationAnswer:
    shares = made.shares()
    return AllocationAnswer(
        rule=made.rule.name,
        period=made.period.name,
        amount_usd=made.amount_usd,
        how=made.how,
        dry_run=run is None,
        lines=len(made.lines),
        bearers=len(shares),
        shares=[ShareAnswer(tenant=tenant, who=who, cost_usd=usd) for tenant, who, usd in shares[:_MOST_SHARES]],
        notes=list(made.notes),
        correction=run,
    )
