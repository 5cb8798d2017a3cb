"""What is said of a budget, and when: timelines with a clock of their own, then any timeline at all."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.alerts.config_budgets import Budget, fingerprint
from tallystick.alerts.decide import CORRECTION, TAKEN_OVER, Decision, decide
from tallystick.alerts.model import Basis, Forecast, Key, Kind, Mark, Period, Spend, Threshold
from tallystick.alerts.periods import period_at, previous, since

D = Decimal


@dataclass
class Timeline:
    """A budget over time, with the ledger's rule: a message enters with its marks, unless its key is there already."""

    now: datetime = datetime(2026, 3, 10, tzinfo=UTC)
    fields: dict[str, Any] = field(default_factory=dict)
    ledger: dict[Key, Mark] = field(default_factory=dict)
    fingerprints: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fields = {"name": "acme", "amount": 100, "period": "month", "notify": ["team"]} | self.fields
        self.edit()

    def edit(self, **fields: object) -> None:
        self.fields |= fields
        self.budget = Budget.model_validate(self.fields)
        if not self.fingerprints or self.fingerprints[-1] != fingerprint(self.budget):
            self.fingerprints.append(fingerprint(self.budget))

    @property
    def revision(self) -> int:
        return len(self.fingerprints)

    def at(self, *when: int) -> "Timeline":
        self.now = datetime(*when, tzinfo=UTC)  # type: ignore[arg-type, misc]
        return self

    def look(self, spent: object, period: Period | None = None, **more: Any) -> Decision:
        """What an evaluator decides; nothing is entered."""
        period = period or period_at(self.budget.periods, self.now)
        spend = Spend(
            more.get("value", ""), D(str(spent)), D(more.get("corrections", 0)), more.get("tokens", 0), 0, more.get("calls", 0), 0
        )
        marks = [one for one in self.ledger.values() if (one.key.period_start, one.key.value) == (period.start, spend.value)]
        foreseen = more.get("forecast")
        forecast = None if foreseen is None else Forecast(D(foreseen) / 2, D(foreseen), D(foreseen) * 2)
        return decide(self.budget, self.revision, period, spend, forecast=forecast, marks=marks, now=self.now)

    def enter(self, decision: Decision) -> bool:
        if decision.say and decision.say.key in self.ledger:
            return False
        for mark in decision.marks:
            self.ledger.setdefault(mark.key, mark)
        if decision.say:
            self.said.append(decision.say.key.mark)
        return decision.say is not None

    def tick(self, spent: object, period: Period | None = None, **more: Any) -> str:
        """`reached actual:50`, or the reason for silence."""
        decision = self.look(spent, period, **more)
        self.enter(decision)
        return f"{decision.reason} {decision.say.key.mark}" if decision.say else decision.reason


# --- thresholds --------------------------------------------------------------------------------------------------------------------


def test_a_month() -> None:
    acme = Timeline()
    assert acme.at(2026, 3, 1, 9).tick(12) == "below"
    assert acme.at(2026, 3, 9, 9).tick(49.99) == "below"
    assert acme.at(2026, 3, 10, 9).tick(50) == "reached actual:50"
    assert acme.at(2026, 3, 10, 10).tick(51) == "already_said"
    assert acme.at(2026, 3, 20, 9).tick(80) == "reached actual:80"
    assert acme.at(2026, 3, 28, 9).tick(130) == "reached actual:100"
    assert acme.at(2026, 3, 31, 23, 59, 59).tick(200) == "already_said"
    assert acme.at(2026, 4, 1).tick(3) == "below"
    assert acme.at(2026, 4, 2).tick(55) == "reached actual:50"


def test_a_jump_is_one_message_of_the_highest_and_marks_all() -> None:
    acme = Timeline()
    decision = acme.look(101)
    assert decision.reason == "jumped"
    assert decision.say is not None
    assert decision.say.threshold == Threshold(D(100))
    assert decision.say.passed == (Threshold(D(50)), Threshold(D(80)))
    assert {mark.key.mark: mark.said for mark in decision.marks} == {"actual:50": False, "actual:80": False, "actual:100": True}
    acme.enter(decision)
    assert acme.tick(101) == acme.tick(99) == "already_said"


def test_a_mark_tells_what_was_known() -> None:
    acme = Timeline(fields={"each": "agent", "currency": "EUR", "exchange_rate": "1.2"})
    decision = acme.look(60, value="research", corrections=7)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert decision.marks == (Mark(Key("acme", 1, start, "research", "actual:50"), D("120.0"), D(60), D(7), acme.now, True),)


def test_falling_spend_does_not_rearm() -> None:
    acme = Timeline(fields={"correction_percent": 99})
    assert acme.tick(85) == "jumped actual:80"
    assert acme.tick(10) == "below"
    assert acme.tick(85) == "already_said"
    assert acme.tick(100) == "reached actual:100"


def test_values_are_budgets_of_their_own() -> None:
    agents = Timeline(fields={"each": "agent"})
    assert agents.tick(50, value="research") == "reached actual:50"
    assert agents.tick(50, value="support") == "reached actual:50"
    assert agents.tick(50, value="research") == "already_said"


@pytest.mark.parametrize(("measure", "spend"), [("tokens", {"tokens": 50}), ("calls", {"calls": 50})])
def test_what_is_counted(measure: str, spend: dict[str, Any]) -> None:
    acme = Timeline(fields={"measure": measure})
    assert acme.tick(99) == "below"
    assert acme.tick(0, **spend) == "reached actual:50"


def test_tiny_budgets_do_not_chatter() -> None:
    acme = Timeline(fields={"amount": 1, "minimum": "0.9"})
    assert acme.tick("0.89") == "below_minimum"
    assert acme.tick("0.9") == "jumped actual:80"
    assert acme.tick("0.88") == "already_said"
    acme.edit(minimum=2)
    assert acme.tick("1.99") == "below_minimum"
    assert acme.tick(2) == "reached actual:100"


# --- time --------------------------------------------------------------------------------------------------------------------------


def test_late_spans_count_where_they_happened() -> None:
    """A span of 31 March arrives on 1 April: March crosses its line, April doesn't."""
    acme = Timeline()
    assert acme.at(2026, 3, 31, 23).tick(45) == "below"
    acme.at(2026, 4, 1, 0, 5)
    april = period_at(acme.budget.periods, acme.now)
    assert acme.tick(55, previous(acme.budget.periods, april)) == "late actual:50"
    assert acme.tick(1) == "below"
    assert acme.tick(55, previous(acme.budget.periods, april)) == "already_said"


def test_downtime_over_a_rollover_is_caught_up_once() -> None:
    """Down from Friday noon until Monday morning, with a budget a day."""
    acme = Timeline(fields={"period": "day"})
    assert acme.at(2026, 3, 6, 12).tick(50) == "reached actual:50"
    acme.at(2026, 3, 9, 8)
    spent = {"2026-03-06": 120, "2026-03-07": 90, "2026-03-08": 10, "2026-03-09": 60}

    def judge() -> list[tuple[str, str]]:
        periods = since(acme.budget.periods, datetime(2026, 3, 6, 12, tzinfo=UTC), acme.now)
        return [(period.label, acme.tick(spent[period.label], period)) for period in periods]

    assert judge() == [
        ("2026-03-06", "late actual:100"),
        ("2026-03-07", "late actual:80"),
        ("2026-03-08", "below"),
        ("2026-03-09", "reached actual:50"),
    ]
    assert {reason for _, reason in judge()} == {"already_said", "below"}


def test_a_clock_set_back_repeats_nothing() -> None:
    acme = Timeline()
    assert acme.at(2026, 4, 1, 0, 0, 1).tick(60) == "reached actual:50"
    assert acme.at(2026, 3, 31, 23, 59, 50).tick(99) == "jumped actual:80"
    assert acme.at(2026, 4, 1, 0, 0, 2).tick(60) == "already_said"
    assert acme.at(2026, 3, 31, 23, 59, 50).tick(99) == "already_said"


def test_the_hour_that_comes_twice_is_two_budgets() -> None:
    acme = Timeline(fields={"period": "hour", "timezone": "America/New_York"})
    assert acme.at(2026, 11, 1, 5, 30).tick(50) == "reached actual:50"
    assert acme.at(2026, 11, 1, 6, 10).tick(50) == "reached actual:50"
    assert acme.at(2026, 11, 1, 6, 50).tick(50) == "already_said"


# --- edits -------------------------------------------------------------------------------------------------------------------------


def test_raising_the_amount_rearms_only_what_is_now_below() -> None:
    acme = Timeline()
    assert acme.tick(85) == "jumped actual:80"
    acme.edit(amount=120)
    assert acme.tick(85) == "rearmed"
    assert acme.tick(90) == "already_said"
    assert acme.tick(97) == "reached actual:80"


def test_what_was_rearmed_is_said_also_if_it_was_said_of_the_old_amount() -> None:
    """The new revision is judged once below its line; when the line is reached later, that is news."""
    acme = Timeline()
    assert acme.tick(55) == "reached actual:50"
    acme.edit(amount=200)
    assert acme.tick(55) == "rearmed"
    assert acme.tick(99) == "below"
    assert acme.tick(100) == "reached actual:50"


def test_lowering_the_amount_is_judged_at_once() -> None:
    acme = Timeline()
    assert acme.tick(55) == "reached actual:50"
    acme.edit(amount=60)
    assert acme.tick(55) == "reached actual:80"
    assert acme.tick(55) == "already_said"


def test_an_edit_that_changes_nothing_reached_is_silent() -> None:
    acme = Timeline()
    assert acme.tick(55) == "reached actual:50"
    acme.edit(amount=99)
    assert acme.tick(55) == "carried_over"
    assert acme.tick(55) == "already_said"


def test_undoing_an_edit_is_an_edit() -> None:
    """Raised to 200 and judged, then back to 100: 50 % is reached again, and news to who was told that it isn't."""
    acme = Timeline()
    assert acme.tick(60) == "reached actual:50"
    acme.edit(amount=200)
    assert acme.tick(60) == "rearmed"
    acme.edit(amount=100)
    assert acme.tick(60) == "reached actual:50"


def test_edits_between_two_ticks_are_one() -> None:
    acme = Timeline()
    assert acme.tick(60) == "reached actual:50"
    acme.edit(amount=500)
    acme.edit(amount=99)
    assert acme.tick(60) == "carried_over"


def test_a_threshold_added_below_what_was_said_is_no_news() -> None:
    acme = Timeline()
    assert acme.tick(85) == "jumped actual:80"
    acme.edit(thresholds=[50, 70, 80, 90])
    assert acme.tick(85) == "carried_over"
    assert acme.tick(90) == "reached actual:90"


def test_a_replica_that_still_has_the_old_file_says_nothing_twice() -> None:
    """The new revision has said 50 % when a replica that was left behind says 80 % of the old one."""
    acme = Timeline(fields={"amount": 99})
    acme.edit(amount=100)
    assert acme.tick(50) == "reached actual:50"
    behind = Timeline(fields={"amount": 99}, ledger=acme.ledger)
    assert behind.tick(85) == "jumped actual:80"
    decision = acme.look(85)
    assert (decision.reason, {mark.key.mark for mark in decision.marks}) == ("carried_over", {TAKEN_OVER, "actual:80"})


def test_owners_and_channels_are_no_edit() -> None:
    acme = Timeline()
    assert acme.tick(55) == "reached actual:50"
    acme.edit(owners=["ops@example.com"], notify=["other"], minimum=1, correction_percent=9)
    assert acme.revision == 1
    assert acme.tick(55) == "already_said"


# --- corrections -------------------------------------------------------------------------------------------------------------------


def test_a_void_that_matters_is_told_once() -> None:
    acme = Timeline()
    assert acme.tick(80) == "jumped actual:80"
    assert acme.tick(76) == "already_said"
    decision = acme.look("75.99")
    assert decision.say is not None
    assert (decision.reason, decision.say.kind, decision.say.announced) == ("corrected", Kind.CORRECTION, D(80))
    acme.enter(decision)
    assert acme.tick(10) == "below"
    assert acme.tick(100) == "reached actual:100"
    assert acme.tick(20) == "below"


@pytest.mark.parametrize(
    ("corrections", "expected"), [(4, "already_said"), (5, "corrected correction"), (-5, "corrected correction")]
)
def test_a_repricing_that_matters_is_told(corrections: int, expected: str) -> None:
    """80 was announced, of which 5 % are 4. New calls make up for a repricing downwards, so the sum alone wouldn't show it."""
    acme = Timeline()
    assert acme.tick(80) == "jumped actual:80"
    assert acme.tick(85, corrections=corrections) == expected


def test_a_repricing_over_a_line_is_told_as_that() -> None:
    acme = Timeline()
    assert acme.tick(80) == "jumped actual:80"
    assert acme.tick(105, corrections=20) == "reached actual:100"
    assert acme.tick(105, corrections=20) == "already_said"


def test_what_nobody_was_told_is_not_corrected() -> None:
    acme = Timeline()
    assert acme.tick(49) == "below"
    assert acme.tick(20, corrections=-29) == "below"


def test_a_correction_after_the_period() -> None:
    acme = Timeline()
    march = period_at(acme.budget.periods, acme.now)
    assert acme.tick(90) == "jumped actual:80"
    assert acme.at(2026, 4, 3).tick(70, march, corrections=-20) == "corrected correction"
    assert acme.tick(60, march, corrections=-30) == "already_said"


def test_repriced_cost_does_not_correct_tokens() -> None:
    acme = Timeline(fields={"measure": "tokens"})
    assert acme.tick(80, tokens=80) == "jumped actual:80"
    assert acme.tick(20, tokens=80, corrections=-60) == "already_said"
    assert acme.tick(20, tokens=70, corrections=-60) == "corrected correction"


def test_what_an_edit_carried_over_can_be_corrected_in_the_new_revision() -> None:
    acme = Timeline()
    assert acme.tick(80) == "jumped actual:80"
    acme.edit(amount=90)
    assert acme.tick(80) == "carried_over"
    assert acme.tick(60) == "corrected correction"
    assert acme.tick(50) == "already_said"


def test_what_no_longer_holds_is_not_corrected() -> None:
    """Nothing of the new revision has been announced, and it may count something else."""
    acme = Timeline()
    assert acme.tick(60) == "reached actual:50"
    acme.edit(scope={"customer": "acme"})
    assert acme.tick(6) == "rearmed"
    assert acme.tick(3) == "below"


# --- forecasts ---------------------------------------------------------------------------------------------------------------------


def test_a_forecast_is_a_threshold_of_its_own() -> None:
    acme = Timeline(fields={"thresholds": [50, 100, "forecast 100"]})
    assert acme.tick(20, forecast=99) == "below"
    assert acme.tick(20, forecast=100) == "reached forecast:100"
    assert acme.tick(20, forecast=90) == "below"
    assert acme.tick(50, forecast=100) == "reached actual:50"
    assert acme.tick(100, forecast=150) == "reached actual:100"


def test_the_worse_of_two_is_named() -> None:
    acme = Timeline(fields={"thresholds": [50, 100, "forecast 100"]})
    assert acme.look(50, forecast=120).reason == "jumped"
    assert acme.tick(50, forecast=120) == "jumped forecast:100"
    assert acme.tick(100, forecast=120) == "reached actual:100"


def test_what_is_spent_need_not_be_foreseen() -> None:
    acme = Timeline(fields={"thresholds": [50, 100, "forecast 100", "forecast 150"]})
    assert acme.tick(100) == "jumped actual:100"
    assert acme.tick(101, forecast=140) == "already_said"
    assert acme.tick(101, forecast=150) == "reached forecast:150"
    later = Timeline(fields={"thresholds": [100]})
    assert later.tick(100) == "reached actual:100"
    later.edit(thresholds=[100, "forecast 90", "forecast 150"])
    assert later.tick(100, forecast=150) == "reached forecast:150"
    assert later.tick(100, forecast=150) == "already_said"
    lone = Timeline(fields={"thresholds": ["forecast 100"]})
    assert lone.tick(100) == "reached forecast:100"


def test_a_forecast_added_by_an_edit_below_what_was_said() -> None:
    acme = Timeline()
    assert acme.tick(100) == "jumped actual:100"
    acme.edit(thresholds=[50, 80, 100, "forecast 90"])
    assert acme.tick(100, forecast=300) == "carried_over"
    assert acme.tick(100, forecast=300) == "already_said"


def test_who_heard_of_a_forecast_has_not_heard_of_spend() -> None:
    acme = Timeline(fields={"thresholds": [50, "forecast 100"]})
    assert acme.tick(40, forecast=100) == "reached forecast:100"
    acme.edit(amount=80)
    assert acme.tick(40, forecast=100) == "reached actual:50"


def test_a_period_that_is_over_has_no_forecast() -> None:
    acme = Timeline(fields={"thresholds": [50, "forecast 100"]})
    march = period_at(acme.budget.periods, acme.now)
    assert acme.at(2026, 4, 1).tick(40, march, forecast=200) == "below"


# --- where to, and when ------------------------------------------------------------------------------------------------------------


def test_a_jump_reaches_all_who_wanted_to_hear_of_a_part_of_it() -> None:
    acme = Timeline(fields={"notify": {"default": ["team"], "100": ["oncall", "team"]}, "thresholds": [50, 100]})
    for spent, channels in ((50, ("team",)), (100, ("team", "oncall"))):
        decision = acme.look(spent)
        assert decision.say is not None
        assert decision.say.channels == channels
    assert acme.budget.channels_for("actual:100") == ("oncall", "team")


def test_quiet_hours_delay_all_but_the_exception() -> None:
    """22:00 to 07:00 in Berlin, which is at 05:00 UTC when summer time has begun that night."""
    quiet = {"from": "22:00", "until": "07:00", "timezone": "Europe/Berlin", "except": [100]}
    acme = Timeline(fields={"quiet_hours": quiet}).at(2026, 3, 29, 0, 30)
    for spent, not_before in ((50, datetime(2026, 3, 29, 5, tzinfo=UTC)), (100, None)):
        decision = acme.look(spent)
        assert decision.say is not None
        assert decision.say.not_before == not_before
    acme.tick(50)
    decision = acme.look(20)
    assert decision.say is not None
    assert (decision.reason, decision.say.not_before) == ("corrected", datetime(2026, 3, 29, 5, tzinfo=UTC))
    assert acme.at(2026, 3, 29, 12).look(80).say == replace(acme.look(80).say, not_before=None)  # type: ignore[type-var]


# --- four evaluators ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spent", [[50, 50, 50, 50], [50, 85, 85, 101], [101, 85, 50, 50]])
def test_four_who_see_the_same_marks_say_each_key_once(spent: list[int]) -> None:
    """Each reads before any of them writes, and a moment's spend apart."""
    acme = Timeline()
    decisions = [acme.look(one) for one in spent]
    for decision in decisions:
        acme.enter(decision)
    assert len(acme.said) == len(set(acme.said))
    assert acme.tick(max(spent)) == "already_said"
    reached = [percent for percent in (50, 80, 100) if max(spent) >= percent]
    assert acme.said[-1] == f"actual:{reached[-1]}" or acme.said[0] == f"actual:{reached[-1]}"


# --- any timeline ------------------------------------------------------------------------------------------------------------------

PERCENTS = st.lists(st.sampled_from([25, 50, 75, 80, 100, 120]), min_size=1, unique=True).map(sorted)
SPENT = st.integers(0, 200)
STEPS = st.one_of(
    st.tuples(st.just("spend"), st.sampled_from(["current", "previous"]), SPENT),
    st.tuples(st.just("edit"), st.sampled_from([50, 100, 150, 400]), PERCENTS),
    st.tuples(st.just("clock"), st.integers(-30, 30), st.none()),
    st.tuples(st.just("tick"), st.none(), st.none()),
)


class Told:
    """What somebody knows who remembers everything that was said of one period: another way to the same answers as `decide`."""

    def __init__(self) -> None:
        self.revision = 0
        self.known: set[int] = set()

    def hear(self, revision: int, amount: int, percents: list[int], spent: int) -> int | None:
        """The threshold that is news."""
        reached = {percent for percent in percents if spent * 100 >= amount * percent}
        if revision != self.revision:
            self.revision = revision
            self.known = {percent for percent in reached if self.known and percent <= max(self.known)}
        news = reached - self.known
        self.known |= news
        return max(news, default=None)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_timeline_is_told_as_somebody_would_who_forgets_nothing(steps: list[tuple[str, Any, Any]]) -> None:
    """Spend up and down, edits, clock steps over midnight and back, periods judged late, state only in the ledger."""
    acme = Timeline(fields={"period": "day", "correction_percent": "99.9"})
    spent: dict[Period, int] = {}
    told: dict[Period, Told] = {}
    for step, first, second in steps:
        current = period_at(acme.budget.periods, acme.now)
        before = previous(acme.budget.periods, current)
        match step:
            case "spend":
                spent[current if first == "current" else before] = second
            case "edit":
                acme.edit(amount=first, thresholds=second)
            case "clock":
                acme.now += timedelta(hours=first)
            case "tick":
                for period in (before, current):
                    decision = acme.look(spent.get(period, 0), period)
                    if decision.reason == "corrected":
                        decision = Decision(decision.reason)
                    news = told.setdefault(period, Told()).hear(
                        acme.revision, acme.fields["amount"], acme.fields.get("thresholds", [50, 80, 100]), spent.get(period, 0)
                    )
                    assert (decision.say and decision.say.key.mark) == (news and f"actual:{news}")
                    assert decision.say is None or decision.say.key not in acme.ledger
                    acme.enter(decision)


RACES = st.lists(
    st.tuples(
        st.sampled_from([50, 100, 150]),
        st.lists(st.sampled_from([50, 80, 100, "forecast 80", "forecast 100"]), min_size=1, unique=True),
        st.lists(st.tuples(SPENT, st.none() | st.integers(0, 300), st.integers(-50, 50)), min_size=1, max_size=4),
    ),
    max_size=12,
)


def in_order(thresholds: list[int | str]) -> list[int | str]:
    return sorted(thresholds, key=lambda one: (isinstance(one, str), len(str(one)), str(one)))


def covers(said: Mark, other: Mark) -> bool:
    return D(said.key.mark.split(":")[1]) >= D(other.key.mark.split(":")[1])


@settings(max_examples=300, deadline=None)
@given(RACES)
def test_evaluators_that_race(rounds: list[tuple[int, list[int | str], list[tuple[int, int | None, int]]]]) -> None:
    """In each round up to four read the same marks and figures of their own, then write one after another."""
    acme = Timeline()
    for amount, thresholds, figures in rounds:
        acme.edit(amount=amount, thresholds=in_order(thresholds))
        decisions = [acme.look(spent, forecast=foreseen, corrections=moved) for spent, foreseen, moved in figures]
        for decision in decisions:
            acme.enter(decision)
        assert len([key for key, mark in acme.ledger.items() if mark.said]) == len(acme.said)

        spent, foreseen, moved = figures[-1]
        acme.tick(spent, forecast=foreseen, corrections=moved)
        foreseen = max(spent, foreseen or 0)
        marked = {mark.key.mark for mark in acme.ledger.values() if mark.key.revision == acme.revision}
        for one, line in acme.budget.lines:
            assert one.key in marked or (spent if one.basis is Basis.ACTUAL else foreseen) < line
        again = acme.look(spent, forecast=foreseen, corrections=moved).say
        assert again is None or again.kind is Kind.CORRECTION
    thresholds_said = [mark for mark in acme.ledger.values() if mark.said and mark.key.mark != CORRECTION]
    for mark in acme.ledger.values():
        if mark.key.mark not in {TAKEN_OVER, CORRECTION}:
            assert any(covers(said, mark) for said in thresholds_said), f"nobody heard of {mark}"
