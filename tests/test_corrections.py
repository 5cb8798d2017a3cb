"""Runs of corrections in the engine: what they enter, against the same sums worked out by hand."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from corrected import SINCE_NS, UNTIL_NS, Call, Rates, book, by_call, corrections_of, enter, expected, totals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.attribution import runs as module
from tallystick.attribution.corrections import AlreadyMade, Busy, Corrections, Line, NotMade, NotUndoable
from tallystick.attribution.priced_calls import Which
from tallystick.attribution.reprice import NothingToReprice, Repriced, reprice
from tallystick.attribution.spend import spend
from tallystick.attribution.sql_files import insert_json
from tallystick.attribution.voids import NoSuchCall, void_call
from tallystick.ingest.turns import LocalTurns

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_tenants = (f"corrected-{number}" for number in itertools.count())
OLD: Rates = {"lab-a": (Decimal("1.5"), Decimal(10)), "lab-b": None, "lab-c": (Decimal(2), Decimal(8))}
NEW: Rates = {"lab-a": (Decimal("1.25"), Decimal("7.5")), "lab-b": (Decimal("0.000001"), Decimal(3)), "lab-c": None}


@pytest.fixture
def client(chdb_client: "Client") -> "Client":
    return chdb_client


@pytest.fixture
def corrections(client: "Client") -> Corrections:
    return corrections_of(client)


@pytest.fixture
def tenant() -> str:
    return next(_tenants)


def which(tenant: str, **options: Any) -> Which:
    return Which(SINCE_NS, UNTIL_NS, tenant=tenant, **options)


def run(corrections: Corrections, tenant: str, rates: Rates, **options: Any) -> Repriced:
    dry_run = options.pop("dry_run", False)
    return reprice(corrections, book(rates), which(tenant, **options), reason="test", author="ana", dry_run=dry_run)


def some_calls() -> list[Call]:
    """By turns of three models, some without a count."""
    made = []
    for number in range(30):
        model = ("lab-a", "lab-b", "lab-c")[number % 3]
        tokens = (None, None) if number in (9, 10) else (1000 * number, 7 * number)
        call = Call(number, model, tokens[0], tokens[1], None, f"customer-{number % 4}")
        made.append(replace(call, cost=call.price(OLD)))
    return made


# --- repricing ---


def test_differences_coverage_and_a_second_time(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    costs = {call.number: call.cost for call in calls}
    assert totals(client, tenant) == expected(calls, costs)
    tried = run(corrections, tenant, NEW, dry_run=True)
    assert tried.made is None
    assert totals(client, tenant) == expected(calls, costs)

    found = run(corrections, tenant, NEW)
    after = {call.number: call.cost if (price := call.price(NEW)) is None else price for call in calls}
    changed = [call for call in calls if after[call.number] != call.cost]
    difference = sum(((after[call.number] or 0) - (call.cost or 0) for call in changed), Decimal(0))
    assert totals(client, tenant) == expected(calls, after)
    assert by_call(client, tenant) == {call.trace_id: after[call.number] for call in calls}
    assert found.made is not None
    assert (found.changed, found.cost_usd, found.made.cost_usd) == (len(changed), difference, difference)
    assert found.newly_priced == sum(call.cost is None for call in changed)
    assert found.price_lost == sum(call.model == "lab-c" and call.cost is not None for call in calls)
    assert (*vars(found.before).values(),) == expected(calls, costs)
    assert (*vars(found.after).values(),) == expected(calls, after)
    assert vars(tried) | {"made": None} == vars(found) | {"made": None}
    for by in ("model", "customer", "day"):
        told = [one for one in found.differences if one.by == by]
        assert sum(one.calls for one in told) == len(changed)
        assert sum(one.cost_usd for one in told) == difference
    assert {one.value: one.cost_usd for one in found.differences if one.by == "model"} == {
        model: sum(((after[c.number] or 0) - (c.cost or 0) for c in changed if c.model == model), Decimal(0))
        for model in ("lab-a", "lab-b")
    }

    again = run(corrections, tenant, NEW)
    assert (again.made, again.changed, again.cost_usd) == (None, 0, Decimal(0))
    assert totals(client, tenant) == expected(calls, after)


def test_an_entry_says_why_by_what_price_and_in_which_run(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    made = run(corrections, tenant, NEW).made
    assert made is not None
    rows = client.query(
        "SELECT DISTINCT entry, reason, correction, price_id, calls FROM charges WHERE tenant = {t:String} AND entry != 'call' ORDER BY ALL",
        parameters={"t": tenant},
    ).result_rows
    ids = sorted({row[3] for row in rows})
    assert ids[0] == ""
    assert [id.split(",")[2] for id in ids[1:]] == ["lab-a", "lab-b"]
    assert {row[:3] for row in rows} == {("reprice", "test", made.id)}
    # Latencies and answers are the call's alone.
    assert client.query(
        "SELECT count(ttft_ms), uniqExact(started_at = ended_at) FROM charges WHERE tenant = {t:String} AND entry = 'reprice'",
        parameters={"t": tenant},
    ).result_rows == [(0, 1)]
    assert (made.kind, made.author, made.book, made.reason) == ("reprice", "ana", book(NEW).id, "test")
    assert made == corrections.made(made.id) == next(one for one in corrections.all(10_000) if one.id == made.id)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({"model": "lab-a"}, lambda call: call.model == "lab-a"),
        ({"model": "LAB-?"}, lambda call: True),
        ({"model": "*-b"}, lambda call: call.model == "lab-b"),
        ({"model": "ab-a"}, lambda call: False),
        ({"model": "lab.a"}, lambda call: False),
        ({"provider": "lab", "customer": "customer-2"}, lambda call: call.customer == "customer-2"),
        ({"provider": "openai"}, lambda call: False),
        ({"customer": "'; DROP TABLE ledger; --\\"}, lambda call: False),
        ({"customer": "{{cost}}"}, lambda call: False),
    ],
)
def test_only_what_is_meant(
    client: "Client", corrections: Corrections, tenant: str, options: dict[str, str], meant: Callable[[Call], bool]
) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    if not any(map(meant, calls)):
        with pytest.raises(NothingToReprice):
            run(corrections, tenant, NEW, **options)
    else:
        run(corrections, tenant, NEW, **options)
    after = {c.number: c.cost if (price := c.price(NEW)) is None or not meant(c) else price for c in calls}
    assert totals(client, tenant) == expected(calls, after)


def test_periods_are_exact(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    since, until = (int(calls[number].started_at.timestamp()) * 10**9 for number in (3, 12))
    reprice(corrections, book(NEW), Which(since, until, tenant=tenant), reason="test", author="")
    after = {c.number: c.cost if (price := c.price(NEW)) is None or not 3 <= c.number < 12 else price for c in calls}
    assert totals(client, tenant) == expected(calls, after)


usd = st.decimals(min_value=0, max_value=100, places=6)
rates = st.fixed_dictionaries({f"lab-{name}": st.none() | st.tuples(usd, usd) for name in "abc"})
count = st.none() | st.integers(min_value=0, max_value=10**7)
steps = st.lists(
    st.tuples(st.sampled_from(["reprice", "reprice a", "void", "undo"]), rates, st.integers(0, 9)), min_size=1, max_size=5
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(models=st.lists(st.tuples(st.sampled_from("abc"), count, count), min_size=1, max_size=10), first=rates, steps=steps)
def test_any_corrections_in_any_order(
    client: "Client", models: list[tuple[str, int | None, int | None]], first: Rates, steps: list[tuple[str, Rates, int]]
) -> None:
    """After each step the ledger holds what arithmetic says, in all and for each call."""
    tenant, corrections = next(_tenants), corrections_of(client)
    calls = [Call(number, f"lab-{name}", given, made, None) for number, (name, given, made) in enumerate(models)]
    calls = [replace(call, cost=call.price(first)) for call in calls]
    enter(client, tenant, calls)
    costs = {call.number: call.cost for call in calls}
    undoable: list[tuple[str, dict[int, Decimal | None]]] = []
    for step, prices, number in steps:
        before = dict(costs)
        made = None
        if step.startswith("reprice") and costs:
            model = "lab-a" if step == "reprice a" else "*"
            meant = [call for call in calls if call.number in costs and (model == "*" or call.model == model)]
            try:
                made = run(corrections, tenant, prices, model=model).made
            except NothingToReprice:
                assert not [call for call in calls if model in ("*", call.model)]
            for call in meant:
                price = call.price(prices)
                costs[call.number] = costs[call.number] if price is None else price
            assert (made is not None) == (costs != before)
        elif step == "void":
            call = calls[number % len(calls)]
            if call.number in costs:
                made = void_call(corrections, call.trace_id, call.span_id, tenant=tenant, reason="test", author="").made
                del costs[call.number]
            else:
                with pytest.raises(NoSuchCall, match="voided already"):
                    void_call(corrections, call.trace_id, call.span_id, tenant=tenant, reason="test", author="")
        elif step == "undo" and undoable:
            id, costs = undoable.pop()
            corrections.undo(id, reason="test", author="")
        if made is not None:
            undoable.append((made.id, before))
        assert totals(client, tenant) == expected(calls, costs)
        assert by_call(client, tenant) == {call.trace_id: costs[call.number] for call in calls if call.number in costs}


# --- as of ---


def test_what_was_known_before_a_repricing_is_asked_as_of_then(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    known = totals(client, tenant)
    moment_ns = int(datetime.now(UTC).timestamp() * 1000) * 10**6 + 10**6
    later = corrections_of(client, clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    made = run(later, tenant, NEW).made
    assert made is not None
    repriced = totals(client, tenant)
    assert repriced.cost != known.cost

    def asked(as_of_ns: int | None) -> tuple[Any, ...]:
        query = spend([], SINCE_NS, UNTIL_NS, where={"tenant": tenant}, as_of_ns=as_of_ns)
        row = client.query(query.text, parameters=query.params).first_item
        assert row is not None
        return row["calls"], row["priced_calls"], row["tokens"], row["priced_tokens"], row["cost_usd"]

    assert asked(moment_ns) == known
    assert asked(int(made.at.timestamp() * 1000) * 10**6) == known
    assert asked(int(made.at.timestamp() * 1000) * 10**6 + 10**6) == asked(None) == repriced


# --- allocations and trueups ---


def line(cost: str, **options: Any) -> Line:
    given: dict[str, Any] = {"started_at": datetime(2026, 10, 1, tzinfo=UTC), "tenant": "t", "who": {}, "what": {}, "tags": {}}
    return Line(cost_usd=Decimal(cost), **(given | options))


@pytest.mark.parametrize("cost", ["0.000000000001", "-1234567.000000000001", "98765432.10", "999999", "1000000"])
def test_lines_sum_to_the_last_decimal(client: "Client", corrections: Corrections, tenant: str, cost: str) -> None:
    who, what = {"customer": "Übermut\t'; --", "team": "\\n"}, {"provider": "aws", "request_model": "gpu"}
    made = corrections.append(
        "allocation", [line(cost, tenant=tenant, who=who, what=what, tags={"rule": "a,b"})], key=f"{tenant} gpu", reason="idle GPUs",
        author="ana", detail={"rate": Decimal("1.5")},
    )  # fmt: skip
    assert made.cost_usd == Decimal(cost)
    assert made.detail == {"rate": "1.5"}
    rows = client.query(
        "SELECT entry, sum(calls), count(input_tokens), customer, team, provider, tags['rule'], trace_id, sum(cost_usd), any(reason), any(correction) "
        "FROM charges WHERE tenant = {t:String} GROUP BY ALL",
        parameters={"t": tenant},
    ).result_rows
    assert rows == [
        ("allocation", 0, 0, who["customer"], who["team"], "aws", "a,b", "0" * 32, Decimal(cost), "idle GPUs", made.id)
    ]
    corrections.undo(made.id, reason="wrong", author="bob")
    assert totals(client, tenant).cost == 0


def test_what_a_key_names_is_made_once(client: "Client", corrections: Corrections, tenant: str) -> None:
    def append() -> module.Made:
        return corrections.append(
            "trueup", [line("5", tenant=tenant)], key=f"{tenant} 2026-10", reason="invoice", author="ana", detail={}
        )

    first = append()
    with pytest.raises(AlreadyMade, match=first.id) as caught:
        append()
    assert caught.value.made == first
    undone = corrections.undo(first.id, reason="wrong", author="bob")
    assert (undone.kind, undone.undoes, undone.cost_usd) == ("undo", first.id, Decimal(-5))
    again = corrections.made(first.id)
    assert again is not None
    assert again.undone_by == undone.id
    with pytest.raises(AlreadyMade, match=undone.id):
        corrections.undo(first.id, reason="twice", author="bob")
    with pytest.raises(NotUndoable):
        corrections.undo(undone.id, reason="back", author="bob")
    append()
    assert totals(client, tenant).cost == 5


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], "nothing"),
        ([line("0")], "nothing"),
        ([line("0.0000000000001")], "12 decimals"),
        ([line("NaN")], "12 decimals"),
        ([line("1"), line("1", who={"costumer": "acme"})], "costumer"),
        ([line("1", what={"model": "gpt-5"})], "request_model"),
        ([line("1", started_at=datetime(2026, 10, 1))], "time zone"),  # noqa: DTZ001
    ],
)
def test_a_bad_line_enters_nothing(client: "Client", corrections: Corrections, lines: list[Line], match: str) -> None:
    before = client.query("SELECT count() FROM ledger").first_row
    with pytest.raises(ValueError, match=match):
        corrections.append("allocation", lines, key="bad", reason="x", author="", detail={})
    assert client.query("SELECT count() FROM ledger").first_row == before


@pytest.mark.parametrize("reason", ["", "a\nb", "x" * 501])
def test_a_reason_is_needed(corrections: Corrections, reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        corrections.append("trueup", [line("1")], key="k", reason=reason, author="", detail={})


# --- undo ---


def test_of_two_repricings_the_last_is_undone_first(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    before = totals(client, tenant)
    first, second = run(corrections, tenant, NEW).made, run(corrections, tenant, OLD, model="lab-a").made
    assert first is not None
    assert second is not None
    with pytest.raises(NotUndoable, match=second.id):
        corrections.undo(first.id, reason="x", author="")
    corrections.undo(second.id, reason="x", author="")
    corrections.undo(first.id, reason="x", author="")
    assert totals(client, tenant) == before
    with pytest.raises(KeyError):
        corrections.undo("nosuch", reason="x", author="")


def test_what_was_voided_since_stays_voided(client: "Client", corrections: Corrections, tenant: str) -> None:
    """By the writer, that is, which asks nobody."""
    calls = some_calls()
    enter(client, tenant, calls)
    made = run(corrections, tenant, NEW).made
    assert made is not None
    void_at_ingest(client, tenant, calls[3])
    corrections.undo(made.id, reason="x", author="")
    assert totals(client, tenant) == expected(calls, {call.number: call.cost for call in calls if call is not calls[3]})


def void_at_ingest(client: "Client", tenant: str, call: Call) -> None:
    """As schema/sql/void.sql does: all that the ledger holds for it, with opposite signs."""
    amounts = ("calls", "input_tokens", "output_tokens", "cost_usd")
    opposite = ", ".join(f"-{name} AS {name}" for name in amounts)
    client.command(
        f"INSERT INTO ledger SELECT * REPLACE ('void' AS entry, {opposite}, '' AS correction, now64(3) AS entered_at) "
        f"FROM (SELECT * FROM ledger WHERE tenant = '{tenant}' AND trace_id = unhex('{call.trace_id}'))"
    )


# --- two at once, and the writer in between ---


def test_a_second_run_is_told_that_one_is_under_way(client: "Client", tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    turns = LocalTurns()
    corrections = corrections_of(client, turns)
    with ThreadPoolExecutor(1) as pool:
        with turns.take():
            first = pool.submit(run, corrections, tenant, NEW)
            while not corrections._running.locked():
                pass
            with pytest.raises(Busy):
                run(corrections, tenant, NEW)
            with pytest.raises(Busy):
                corrections.append("trueup", [line("1")], key="busy", reason="x", author="", detail={})
        assert first.result().made is not None
    assert run(corrections, tenant, NEW).made is None


def test_a_run_that_another_process_overtakes_enters_nothing(client: "Client", tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)

    class Overtaken:
        """Between what was worked out and the turn to enter it, a process with corrections of its own does the same."""

        def take(self) -> AbstractContextManager[str]:
            assert run(corrections_of(client), tenant, NEW).made is not None
            return nullcontext("1")

    overtaken = corrections_of(client, Overtaken())
    with pytest.raises(Busy, match="made meanwhile"):
        run(overtaken, tenant, NEW)
    after = {call.number: call.cost if (price := call.price(NEW)) is None else price for call in calls}
    assert totals(client, tenant) == expected(calls, after)
    assert run(corrections_of(client), tenant, NEW).made is None


class LostTurn(Exception):
    """As StoreUnavailable of ingest.turns."""


@pytest.mark.parametrize("left", range(4))
def test_a_turn_that_is_lost_on_the_way(client: "Client", tenant: str, left: int) -> None:
    """After that many statements that carried what says that it is ours. Of what they left the next one makes all or nothing."""
    calls = some_calls()
    enter(client, tenant, calls)
    before = totals(client, tenant)
    client.command("CREATE TABLE turn (left Int8) ENGINE = Memory")

    class Lost:
        @contextmanager
        def take(self) -> Iterator[str]:
            yield "(SELECT count() FROM turn) = 0"
            raise LostTurn

    original, statements = client.command, left

    def counted(statement: Any, *rest: Any, **options: Any) -> Any:
        nonlocal statements
        if "FROM turn" in statement:
            statements -= 1
            if statements == -1:
                original("INSERT INTO turn VALUES (1)")
        return original(statement, *rest, **options)

    try:
        client.command = counted  # type: ignore[method-assign, assignment]
        with pytest.raises(LostTurn):
            run(corrections_of(client, Lost(), alone=False), tenant, NEW)
    finally:
        client.command = original  # type: ignore[method-assign]
        client.command("DROP TABLE turn")
    other = corrections_of(client, alone=False)
    assert len(other.recover()) == (left == 1)
    assert (totals(client, tenant) == before) == (left < 2)
    assert (run(other, tenant, NEW).made is None) == (left >= 2)
    after = {call.number: call.cost if (price := call.price(NEW)) is None else price for call in calls}
    assert totals(client, tenant) == expected(calls, after)


def test_a_call_that_is_voided_while_its_price_is_worked_out(client: "Client", tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)

    class Before:
        """The writer's turn, in which it voids calls, comes just before the last step."""

        def take(self) -> AbstractContextManager[str]:
            for call in (calls[1], calls[3]):
                void_at_ingest(client, tenant, call)
            return nullcontext("1")

    run(corrections_of(client, Before()), tenant, NEW)
    after = {call.number: call.cost if (price := call.price(NEW)) is None else price for call in calls}
    del after[1], after[3]
    assert totals(client, tenant) == expected(calls, after)
    assert by_call(client, tenant).keys() == {call.trace_id for call in calls if call.number in after}


# --- failures ---


class Killed(BaseException):
    """Nothing is tidied up after it but by the engine."""


def test_what_a_killed_process_left_is_all_or_nothing(client: "Client", corrections: Corrections, tenant: str) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    before = totals(client, tenant)
    made = run(corrections, tenant, NEW).made
    assert made is not None
    after = totals(client, tenant)

    def as_left(condition: str) -> list[str]:
        """The run as it would be if the process had been killed while it was entered."""
        client.command(
            f"INSERT INTO corrections SELECT * REPLACE ('entering' AS state) FROM corrections FINAL WHERE id = '{made.id}'"
        )
        client.command(
            f"ALTER TABLE ledger DELETE WHERE correction = '{made.id}' AND NOT ({condition}) SETTINGS mutations_sync = 2"
        )
        assert corrections.made(made.id) is None
        return corrections.recover()

    assert as_left("1") == []
    assert corrections.made(made.id) == made
    assert totals(client, tenant) == after
    assert as_left("toDayOfMonth(started_at) = 1") == [made.id]
    assert corrections.made(made.id) is None
    assert totals(client, tenant) == before
    assert corrections.recover() == []
    again = run(corrections, tenant, NEW)
    assert again.cost_usd == made.cost_usd
    assert totals(client, tenant) == after


def test_an_engine_that_fails_enters_nothing(client: "Client", tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = some_calls()
    enter(client, tenant, calls)
    before = totals(client, tenant)
    corrections = corrections_of(client)
    monkeypatch.setattr(module, "_LIMITS", "SETTINGS max_memory_usage = 1")
    with pytest.raises(NotMade, match="MEMORY"):
        run(corrections, tenant, NEW)
    monkeypatch.undo()
    assert totals(client, tenant) == before
    assert run(corrections, tenant, NEW).made is not None


def test_pieces_hold_few_corrections_each_and_all_of_the_time() -> None:
    hours = [(hour * 3600, 200_000) for hour in range(10)]
    found = module._pieces(hours, 5, 10**15)
    assert found[0][0] == 5
    assert found[-1][1] == 10**15
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    assert len(found) == 5
    assert sum(piece.corrections for piece in found) == 2_000_000
    assert module._pieces([], 5, 7) == [(5, 7, 0)]


def test_many_pieces_are_one_run(
    client: "Client", corrections: Corrections, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_CORRECTED", 2)
    calls = some_calls()[:12]
    enter(client, tenant, calls)
    before = totals(client, tenant)
    run(corrections, tenant, NEW)
    made = run(corrections, tenant, OLD).made
    assert made is not None
    costs = {call.number: call.price(OLD) if call.price(OLD) is not None else call.price(NEW) for call in calls}
    assert totals(client, tenant) == expected(calls, costs)
    corrections.undo(made.id, reason="x", author="")
    assert run(corrections, tenant, NEW).made is None
    assert totals(client, tenant).calls == before.calls


def test_rows_are_inserted_as_they_are(client: "Client") -> None:
    client.command("CREATE TABLE IF NOT EXISTS odd (a String, b Nullable(Decimal(38, 12))) ENGINE = Memory")
    odd = 'tab\t newline\n quote" back\\ nul\0 é'
    insert_json(client, "odd", [{"a": odd, "b": Decimal("-12345678901234567890.000000000001")}, {"a": "", "b": None}])
    assert client.query("SELECT a, b FROM odd ORDER BY a DESC").result_rows == [
        (odd, Decimal("-12345678901234567890.000000000001")),
        ("", None),
    ]
    client.command("DROP TABLE odd")
