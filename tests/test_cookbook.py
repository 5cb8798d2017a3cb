"""docs/cookbook.md: every query gives the answer that stands below it, and most answers are worked out here by other means."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any

import pytest
from cookbook import ENTRIES, OCTOBER, PAGE, SEPTEMBER, TENANT, Entry, enter, recipes, table

from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.ingest.store import Store

RECIPES = {recipe.title: recipe for recipe in recipes(PAGE.read_text(encoding="utf-8"))}
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def answers(chdb_store: Store) -> Iterator[Callable[[str], tuple[list[str], list[list[Any]]]]]:
    enter(chdb_store.client())

    def answer(title: str) -> tuple[list[str], list[list[Any]]]:
        with chdb_store.reader(TENANT, READER_SETTINGS) as reader:
            found = run(reader, RECIPES[title].query, None)
        return [column.name for column in found.columns], found.rows

    yield answer
    chdb_store.client().command(
        "ALTER TABLE ledger DELETE WHERE tenant = {tenant:String}", {"tenant": TENANT}, settings={"mutations_sync": 1}
    )


def test_there_are_twenty() -> None:
    assert len(RECIPES) == 20
    assert PAGE.read_text(encoding="utf-8").count("```sql") == 20


@pytest.mark.parametrize("title", RECIPES)
def test_the_answer_is_as_printed(answers: Callable[[str], Any], title: str) -> None:
    assert table(*answers(title)) == RECIPES[title].answer, "run `python tests/cookbook.py`"


# The same by other means


def of(since: datetime = OCTOBER, until: datetime = NOVEMBER, **values: Any) -> list[Entry]:
    return [
        one for one in ENTRIES if since <= one.started_at < until and all(getattr(one, name) == v for name, v in values.items())
    ]


def cost(entries: Iterable[Entry]) -> Decimal:
    return sum((one.cost_usd for one in entries if one.cost_usd is not None), Decimal())


def n(entries: Iterable[Entry]) -> int:
    return sum(one.calls for one in entries)


def by(entries: Iterable[Entry], *names: str) -> dict[tuple[Any, ...], list[Entry]]:
    groups = defaultdict(list)
    for one in entries:
        groups[tuple(getattr(one, name) for name in names)].append(one)
    return groups


def share(part: float | Decimal, whole: float | Decimal, digits: int = 1) -> float:
    return round(100 * float(part) / float(whole), digits)


def plain(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows to compare: amounts, which come as text, as numbers."""
    return [
        [Decimal(cell) if isinstance(cell, str) and cell.lstrip("-").replace(".", "", 1).isdigit() else cell for cell in row]
        for row in rows
    ]


def who_spent_what() -> list[list[Any]]:
    rows = [
        [name, n(part), cost(part), share(n(o for o in part if o.cost_usd is not None), n(part))]
        for (name,), part in by(of(), "customer").items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def teams() -> list[list[Any]]:
    named = [one for one in of() if one.team]
    rows: list[list[Any]] = []
    for (team,), part in sorted(by(named, "team").items()):
        rows += [[team, feature, cost(inner)] for (feature,), inner in sorted(by(part, "feature").items())]
        rows.append([team, "all", cost(part)])
    return [*rows, ["all", "all", cost(named)]]


def month_so_far() -> list[list[Any]]:
    days = [OCTOBER + timedelta(days=d) for d in range(7)]
    return [
        [f"{day:%Y-%m-%d}", cost(of(day, day + timedelta(days=1))), cost(of(OCTOBER, day + timedelta(days=1)))] for day in days
    ]


def same_days() -> list[list[Any]]:
    rows = []
    for day in (1, 7, 14, 21, 28):
        before, now = (cost(of(month, month + timedelta(days=day))) for month in (SEPTEMBER, OCTOBER))
        rows.append([day, before, now, now - before])
    return rows


def corrections() -> list[list[Any]]:
    made = [one for one in ENTRIES if one.entry != "call"]
    rows = [[*what, len(part), n(part), cost(part)] for what, part in by(made, "entry", "reason").items()]
    return sorted(rows, key=lambda row: row[-1])


def as_booked() -> list[list[Any]]:
    booked = cost(one for one in of(SEPTEMBER, OCTOBER) if one.entered_at < OCTOBER + timedelta(days=1))
    now = cost(of(SEPTEMBER, OCTOBER))
    return [[booked, now, now - booked]]


def unpriced() -> list[list[Any]]:
    none = [one for one in ENTRIES if one.entry == "call" and one.cost_usd is None]
    return [
        [*what, n(part), sum(o.input_tokens or 0 for o in part), sum(o.output_tokens or 0 for o in part)]
        for what, part in by(none, "provider", "response_model", "usage_source").items()
    ]


def top_users() -> list[list[Any]]:
    used = of(feature="summary")
    rows = [[user, n(part), cost(part), share(cost(part), cost(used))] for (user,), part in by(used, "user").items()]
    return sorted(rows, key=lambda row: (-row[2], row[0]))[:5]


def sessions() -> list[list[Any]]:
    parts = [part for (session,), part in by(of(), "session").items() if session]
    costs = [cost(part) for part in parts]
    mean, middle = float(sum(costs) / len(costs)), median(costs)
    return [[len(parts), round(mean, 6), round(middle, 6), max(costs), round(sum(map(n, parts)) / len(parts), 1)]]


def dearest() -> list[list[Any]]:
    rows = []
    for (session,), part in by(ENTRIES, "session").items():
        if session:
            top = max((o for o in part if o.cost_usd is not None), key=lambda o: o.cost_usd or 0)
            rows.append([session, part[0].customer, n(part), cost(part), top.response_model])
    return sorted(rows, key=lambda row: (-row[3], row[0]))[:3]


def plans() -> list[list[Any]]:
    rows = []
    for plan in ("paid", "free"):
        part = [one for one in of() if one.tags.get("plan") == plan]
        users = len({one.user for one in part})
        rows.append([plan, users, cost(part), round(cost(part) / users, 6)])
    return rows


def from_cache() -> list[list[Any]]:
    rows = []
    for (feature,), part in sorted(by([one for one in of() if one.entry in ("call", "void")], "feature").items()):
        cached = sum(one.cache_read_tokens or 0 for one in part)
        read = cached + sum(one.input_tokens or 0 for one in part)
        rows.append([feature, cached, read, share(cached, read)])
    return rows


def takeover() -> list[list[Any]]:
    rows = []
    for month, end in ((SEPTEMBER, OCTOBER), (OCTOBER, NOVEMBER)):
        priced = [one for one in of(month, end) if one.response_model and one.cost_usd is not None]
        parts = sorted(by(priced, "response_model").items(), key=lambda item: -cost(item[1]))
        rows += [[f"{month:%Y-%m-%d}", model, cost(part), share(cost(part), cost(priced))] for (model,), part in parts]
    return rows


def thought() -> list[list[Any]]:
    rows = []
    for (model,), part in by(of(), "response_model").items():
        output, reasoning = (sum(getattr(one, name) or 0 for one in part) for name in ("output_tokens", "reasoning_tokens"))
        if reasoning > 0:
            rows.append([model, output, reasoning, share(reasoning, output)])
    return rows


def errors() -> list[list[Any]]:
    told = [one for one in of() if one.entry in ("call", "void")]
    rows = [[*what, n(part), share(n(part), n(told)), cost(part)] for what, part in by(told, "status", "error_type").items()]
    return sorted(rows, key=lambda row: (-row[2], row[1]))


def weekdays() -> list[list[Any]]:
    return [
        [
            day,
            *(
                n(o for o in of() if o.started_at.isoweekday() == day and o.started_at.hour // 6 == quarter)
                for quarter in range(4)
            ),
        ]
        for day in range(1, 8)
    ]


def latency() -> list[list[Any]]:
    rows = []
    fit = of(entry="call", status="ok", cache_hit="")
    for (model,), part in sorted(by(fit, "response_model").items()):
        firsts = sorted(one.ttft_ms for one in part if one.ttft_ms is not None)
        each = sorted(
            (o.duration_ms - o.ttft_ms) / (o.output_tokens - 1) for o in part if o.ttft_ms is not None and o.output_tokens
        )
        whole = sorted(one.duration_ms for one in part)

        def at(level: float, values: Sequence[float]) -> float:
            return values[min(int(level * len(values)), len(values) - 1)]

        rows.append([model, n(part), at(0.5, firsts), at(0.95, firsts), round(at(0.95, each), 2), at(0.95, whole)])
    return rows


WORKED_OUT = {
    "Who spent what, and how much of it is priced": who_spent_what,
    "Teams and their features, with totals": teams,
    "Spend of the month so far": month_so_far,
    "The same days of two months": same_days,
    "What was corrected": corrections,
    "September as it was known when it was booked": as_booked,
    "What is unpriced, and why": unpriced,
    "The top users of a feature": top_users,
    "Cost of a session": sessions,
    "The dearest sessions": dearest,
    "What a plan costs, and each of its users": plans,
    "How much is read from the provider's cache": from_cache,
    "How models take over from each other": takeover,
    "Tokens that were only thought": thought,
    "How fast models answer": latency,
    "What errors and aborted streams cost": errors,
    "When calls come: weekdays and hours": weekdays,
}


@pytest.mark.parametrize("title", WORKED_OUT)
def test_the_answer_is_right(answers: Callable[[str], Any], title: str) -> None:
    _, rows = answers(title)
    expected = WORKED_OUT[title]()
    assert len(rows) == len(expected)
    for mine, theirs in zip(plain(rows), expected, strict=True):
        assert [float(v) if isinstance(v, Decimal) else v for v in mine] == pytest.approx(
            [float(v) if isinstance(v, Decimal) else v for v in theirs], abs=1e-9
        )


def test_the_change_adds_up(answers: Callable[[str], Any]) -> None:
    _, rows = answers("Why it changed: more calls, or dearer ones")
    assert sorted(row[0] for row in rows) == ["chat", "search", "summary"]
    for feature, before, after, *amounts in rows:
        more, by_calls, by_cost = map(Decimal, amounts)
        old, new = of(SEPTEMBER, OCTOBER, feature=feature), of(feature=feature)
        assert (before, after, more) == (n(old), n(new), cost(new) - cost(old))
        assert by_calls + by_cost == more
        assert abs(by_calls - cost(old) * (n(new) - n(old)) / n(old)) < Decimal("1e-11")
