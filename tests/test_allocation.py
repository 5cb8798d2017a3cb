"""Plans of allocations: what is spread, over whom, and that it adds up."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tallystick.attribution.allocation import CantAllocate, Plan, allocate, plan
from tallystick.attribution.allocation_rules import AllocationRule, read_allocations
from tallystick.attribution.config_file import ConfigFileError
from tallystick.attribution.corrections import Busy, Corrections, Made
from tallystick.attribution.months import period_named
from tallystick.attribution.spend import Ask

OCTOBER = period_named("2026-10")


def row(who: str, cost: str | None, *, tenant: str = "t", day: int = 1, tokens: int = 0, n: int = 1) -> dict[str, Any]:
    usd = None if cost is None else Decimal(cost)
    return {
        "day": date(2026, 10, day), "tenant": tenant, "by_0": who, "cost": usd, "tokens": tokens, "n": n,
        "priced_calls": 0 if cost is None else n,
    }  # fmt: skip


def answers(*rows: dict[str, Any]) -> Ask:
    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return rows

    return ask


def rule(**fields: Any) -> AllocationRule:
    return AllocationRule.model_validate({"name": "r", "kind": "amount", "over": "customer"} | fields)


def borne(made: Plan) -> dict[str, Decimal]:
    return {who.get("customer", tenant): usd for tenant, who, usd in made.shares()}


def test_overhead_is_a_part_of_what_was_spent_by_who_spent_it() -> None:
    ask = answers(row("acme", "30"), row("acme", "10", day=2), row("globex", "60"))
    made = plan(ask, rule(kind="overhead", percent=20), OCTOBER)
    assert made.amount_usd == Decimal("20")
    assert borne(made) == {"globex": Decimal(12), "acme": Decimal(8)}
    assert [(line.started_at.day, line.who["customer"], line.cost_usd) for line in made.lines] == [
        (1, "acme", Decimal(6)), (2, "acme", Decimal(2)), (1, "globex", Decimal(12)),
    ]  # fmt: skip
    assert made.key == "r 2026-10"


def test_a_third_of_a_dollar_leaves_nothing_over() -> None:
    ask = answers(*(row(name, "1") for name in "abc"))
    made = plan(ask, rule(kind="fixed", amount=1), OCTOBER)
    assert sorted(borne(made).values()) == [Decimal("0.333333333333")] * 2 + [Decimal("0.333333333334")]


def test_a_daily_amount_counts_the_days() -> None:
    made = plan(answers(row("a", "1")), rule(kind="fixed", amount="2.5", per="day"), OCTOBER)
    assert made.amount_usd == Decimal("77.5")


def test_what_a_gpu_cost_and_calls_were_not_charged_is_idle() -> None:
    fields = {"kind": "idle", "usd_per_hour": "2", "gpus": 4, "charged_to": {"provider": "vllm"}}
    ask = answers(row("a", "1000", tokens=10))
    made = plan(ask, rule(**fields), OCTOBER)
    assert made.amount_usd == 4 * 2 * 24 * 31 - 1000
    with pytest.raises(CantAllocate, match=r"nothing to allocate.*8 h"):
        plan(ask, rule(**fields, hours=8), OCTOBER)
    unpriced = plan(answers(row("a", "1"), row("b", None, n=3)), rule(**fields), OCTOBER)
    assert "3 of its calls have no cost: they count as idle time" in unpriced.notes


def test_equal_parts_for_all_who_called() -> None:
    made = plan(
        answers(row("a", "1"), row("b", None), row("gone", None, n=1), row("gone", None, n=-1)),
        rule(by="equal"),
        OCTOBER,
        amount=Decimal(62),
    )
    assert borne(made) == {"a": 31, "b": 31}
    assert len(made.lines) == 62


def test_given_shares_need_no_calls() -> None:
    made = plan(answers(), rule(by="shares", shares={"acme": 60, "globex": 40}, tenant="x"), OCTOBER, amount=Decimal(10))
    assert borne(made) == {"acme": 6, "globex": 4}
    assert {line.tenant for line in made.lines} == {"x"}


def test_each_tenant_bears_its_own() -> None:
    ask = answers(row("acme", "1", tenant="x"), row("acme", "3", tenant="y"))
    made = plan(ask, rule(), OCTOBER, amount=Decimal(4))
    assert {(line.tenant, line.cost_usd) for line in made.lines} == {("x", Decimal(1)), ("y", Decimal(3))}


def test_names_for_what_is_allocated() -> None:
    made = plan(answers(row("acme", "1")), rule(set={"feature": "platform", "tag:kind": "fee"}), OCTOBER, amount=Decimal(-4))
    (line,) = made.lines
    assert (line.who, line.tags, line.cost_usd) == ({"customer": "acme", "feature": "platform"}, {"kind": "fee"}, Decimal(-4))


def test_who_has_less_than_nothing_bears_nothing() -> None:
    made = plan(answers(row("a", "-5"), row("b", "5"), row("c", None)), rule(), OCTOBER, amount=Decimal(1))
    assert borne(made) == {"b": 1}
    assert "who has less than nothing bears nothing" in made.notes
    assert "1 calls have no cost and count for nothing: `tallystick prices missing` lists them" in made.notes


@pytest.mark.parametrize(
    ("fields", "rows", "amount", "told"),
    [
        ({}, [], Decimal(1), "nobody to bear 1 USD: no cost by customer in 2026-10"),
        ({}, [row("a", None)], Decimal(1), "nobody to bear"),
        ({}, [row("a", "1")], None, "needs an amount"),
        ({"kind": "fixed", "amount": 1}, [row("a", "1")], Decimal(1), "has an amount of its own"),
        ({"kind": "overhead", "percent": 20}, [], None, "nothing to allocate in 2026-10: 20 % of 0 USD"),
        ({"period": "day"}, [row("a", "1")], Decimal(1), "2026-10 is a month"),
    ],
)
def test_what_cant_be_allocated(fields: dict[str, Any], rows: list[dict[str, Any]], amount: Decimal | None, told: str) -> None:
    with pytest.raises(CantAllocate) as caught:
        plan(answers(*rows), rule(**fields), OCTOBER, amount=amount)
    assert told in caught.value.message
    assert caught.value.hint


MONEY = st.decimals(-1000, 10**6, places=12)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    rows=st.lists(
        st.builds(
            row, st.sampled_from("abcdef"), st.one_of(st.none(), MONEY.map(str)), tenant=st.sampled_from("xy"), day=st.integers(1, 31),
            tokens=st.integers(0, 10**9), n=st.integers(0, 1000),
        ), max_size=40, unique_by=lambda one: (one["day"], one["tenant"], one["by_0"]),
    ),
    by=st.sampled_from(["cost", "tokens", "calls", "equal"]),
    amount=MONEY,
)  # fmt: skip
def test_what_is_allocated_adds_up_to_the_last_decimal(rows: list[dict[str, Any]], by: str, amount: Decimal) -> None:
    try:
        made = plan(answers(*rows), rule(by=by), OCTOBER, amount=amount)
    except CantAllocate:
        return
    assert sum(line.cost_usd for line in made.lines) == amount
    assert all(OCTOBER.since <= line.started_at < OCTOBER.until for line in made.lines)
    assert all((line.cost_usd > 0) == (amount > 0) for line in made.lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {name: a, kind: overhead, over: customer}", "conf:2: allocations[0]: a rule of kind overhead needs `percent`"),
        ("- {name: a, kind: amount, over: custmer}", "no dimension 'custmer': did you mean customer?"),
        ("- {name: a, kind: amount, over: model}", "cost can't be given to a model"),
        ("- name: a\n    kind: amount\n    ovre: team", "conf:4: allocations[0].ovre: unknown field; did you mean `over`?"),
        ("- {name: a, kind: amount, amount: 4, over: team}", "`amount` is of rules of kind fixed, this one is of kind amount"),
        ("- {name: a, kind: amount, over: team, by: shares}", "`by: shares` and `shares: {NAME: NUMBER}` go together"),
        ("- {name: a, kind: amount, over: team}\n  - {name: a, kind: amount, over: team}", "the name a is there twice"),
        ("- {name: a, kind: overhead, percent: yes, over: team}", "write a number"),
        ("- {name: a, kind: amount, over: team, set: {team: x}}", "`team` can't be in both `over` and `set`"),
    ],
)
def test_mistakes_in_rules_are_told_with_their_line(text: str, told: str) -> None:
    with pytest.raises(ConfigFileError) as caught:
        read_allocations(f"allocations:\n  {text}\n", "conf")
    assert told in str(caught.value)


def test_a_percentage_beyond_all_is_warned_of() -> None:
    (one,) = read_allocations("allocations:\n  - {name: a, kind: overhead, percent: 120, over: team}\nbudgets: []\n")
    assert one.warnings == ("120 % isn't between 0 and 100: 15 to 30 are usual for hidden cost",)
    assert "120 % isn't between" in plan(answers(row("a", "1")), one, OCTOBER).notes[0]


@pytest.mark.parametrize(
    ("name", "since", "until", "before"),
    [
        ("2026-02", (2026, 2, 1), (2026, 3, 1), "2026-01"),
        ("2024-12", (2024, 12, 1), (2025, 1, 1), "2024-11"),
        ("2026-W01", (2025, 12, 29), (2026, 1, 5), "2025-W52"),
        ("2026-03-01", (2026, 3, 1), (2026, 3, 2), "2026-02-28"),
    ],
)
def test_periods_by_name(name: str, since: tuple[int, int, int], until: tuple[int, int, int], before: str) -> None:
    found = period_named(name)
    assert (found.since, found.until) == (datetime(*since, tzinfo=UTC), datetime(*until, tzinfo=UTC))
    assert (found.name, found.before().name) == (name, before)


@pytest.mark.parametrize("name", ["2026-13", "2026", "2026-W54", "october", "2026-02-30", "1969-12", ""])
def test_what_is_no_period(name: str) -> None:
    with pytest.raises(ValueError, match=r"2026-W42|outside 1971"):
        period_named(name)


class Torn:
    """Corrections of which one run stands, and that then have something else to do."""

    def __init__(self, stands: Made) -> None:
        self.stands, self.undone = stands, [""]

    def all(self, limit: int) -> list[Made]:
        return [self.stands]

    def undo(self, id: str, **why: str) -> None:
        self.undone.append(id)

    def append(self, *args: object, **more: object) -> Made:
        raise Busy("another correction is under way")


def test_an_allocation_that_was_undone_and_not_made_anew_is_told_of() -> None:
    now = datetime(2026, 11, 2, tzinfo=UTC)
    torn = Torn(Made("r1", "allocation", "r 2026-10", now, "ana", "", "", 1, Decimal(1), ""))

    def planned() -> Plan:
        return plan(answers(row("a", "1")), rule(), OCTOBER, amount=Decimal(1))

    with pytest.raises(CantAllocate, match="r1 was undone, and nothing allocated anew: another correction is under way"):
        allocate(cast(Corrections, torn), planned, reason="", author="ana", now=now, again=True)
    assert torn.undone[-1] == "r1"
    with pytest.raises(CantAllocate, match="2026-10 isn't over"):
        allocate(cast(Corrections, torn), planned, reason="", author="ana", now=datetime(2026, 10, 31, tzinfo=UTC))
