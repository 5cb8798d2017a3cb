"""Which definition of a budget judges a period: the one that held when the period ended, or holds now. An edit ends no watch over the past."""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from tallystick.alerts.config_budgets import DEFAULT, Budget
from tallystick.alerts.ledger import Revision
from tallystick.alerts.model import Period
from tallystick.alerts.periods import PeriodSpec, since

log = logging.getLogger(__name__)

_ANYTHING: Final = "anything"
"""No threshold's key: all channels of a budget hear of it."""

Judged = tuple[Budget, int, Period]
"""A period with the budget as it was or is defined, and the revision's number."""
Known = dict[tuple[PeriodSpec, datetime | None], list[Period]]
"""What a tick has found out about periods: most budgets have the same."""


def judged(budget: Budget, revisions: Sequence[Revision], last: datetime | None, now: datetime, known: Known) -> list[Judged]:
    """What a tick at `now` judges of a budget, the oldest period first. last: the last tick. revisions: all, the oldest first; `budget` is the last.

    Where the clock was set back to before the present revision was made, that one judges all: rather a period too many than none.
    """
    found: dict[datetime, Judged] = {}
    until: datetime | None = None
    for one in reversed(revisions):
        definition = budget if until is None else _former(budget, one)
        begin = one.at if one.at <= now else None
        if definition is not None:
            key = definition.periods, begin
            if key not in known:
                known[key] = since(definition.periods, last, now, in_force=begin)
            for period in known[key]:
                if until is None or period.end <= until:
                    # Of two periods that begin together, the newer revision's is meant.
                    found.setdefault(period.start, (definition, one.number, period))
        if begin is None or begin < min(last or now, *found):
            break
        until = begin
    return [found[start] for start in sorted(found)]


def _former(budget: Budget, revision: Revision) -> Budget | None:
    """As it was defined. But who is told, and when, is a matter of today."""
    read = _read(revision.definition)
    if read is None:
        log.warning(
            "revision %d of budget %s can't be read: what it hadn't told of yet stays untold", revision.number, budget.name
        )
        return None
    everybody = {DEFAULT: budget.channels_for(_ANYTHING), **budget.notify}
    return read.model_copy(update={"notify": everybody, "owners": budget.owners, "quiet_hours": budget.quiet_hours})


@lru_cache(maxsize=1_000)
def _read(definition: str) -> Budget | None:
    try:
        return Budget.model_validate(json.loads(definition))
    except ValueError:
        return None
