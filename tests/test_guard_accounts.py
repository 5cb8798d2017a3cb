"""Reservations never let more pass than fits, in whatever order calls begin and end."""

import threading
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tallystick.collectors.guard.accounts import Account, Accounts, Amount, Reservation
from tallystick.collectors.guard.desk import FAR, RESERVED_S, Desk, Short

LIMIT = 1_000


def amount(tokens: int, usd: str | None = "0") -> Amount:
    return Amount(None if usd is None else Decimal(usd), tokens)


class Reserving(RuleBasedStateMachine):
    """Calls of two accounts, one of which all are held against, with a clock that moves."""

    open_calls: Bundle[tuple[Reservation, int]] = Bundle("open_calls")
    settled_calls: Bundle[Reservation] = Bundle("settled_calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.desk = Desk(lambda: self.now)
        self.accounts = [Account({"tokens": Decimal(LIMIT), "usd": Decimal(LIMIT)}) for _ in range(2)]
        self.model: dict[Reservation, tuple[int, str, int]] = {}
        """Reservation → tokens, state, and the account beside the first that it is held against or 0."""

    def accounts_of(self, second: int) -> Sequence[Account]:
        return self.accounts[: second + 1]

    @rule(target=open_calls, tokens=st.integers(0, LIMIT + 1), second=st.integers(0, 1))
    def begin(self, tokens: int, second: int) -> Any:
        wanted = amount(tokens, str(tokens))
        before = [self.taken(account) for account in range(2)]
        made = self.desk.reserve(lambda _: self.accounts_of(second), wanted)
        fits = all(self.taken(account) + tokens <= LIMIT for account in range(second + 1))
        assert isinstance(made, Reservation) == fits
        if isinstance(made, Short):
            assert before == [self.taken(account) for account in range(2)], "a call that is stopped takes nothing"
            assert made.spent + made.reserved + tokens > made.limit == LIMIT
            return self.none()
        self.model[made] = (tokens, "open", second)
        return made, tokens

    def none(self) -> Any:
        from hypothesis.stateful import multiple

        return multiple()

    @rule(target=settled_calls, call=consumes(open_calls), share=st.integers(0, 100))
    def end(self, call: tuple[Reservation, int], share: int) -> Reservation:
        reservation, tokens = call
        took = tokens * share // 100
        self.desk.settle(reservation, amount(took, str(took)))
        self.model[reservation] = (took, "settled", self.model[reservation][2])
        return reservation

    @rule(reservation=settled_calls, tokens=st.integers(0, LIMIT))
    def end_again(self, reservation: Reservation, tokens: int) -> None:
        self.desk.settle(reservation, amount(tokens))

    @rule(seconds=st.sampled_from([1.0, RESERVED_S / 2, RESERVED_S + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.desk.look(lambda _: ())

    def taken(self, account: int) -> int:
        return sum(tokens for tokens, _, second in self.model.values() if second >= account)

    @invariant()
    def holds(self) -> None:
        for number, account in enumerate(self.desk.look(lambda _: self.accounts)):
            for measure in ("tokens", "usd"):
                assert account.spent[measure] + account.reserved[measure] == self.taken(number) <= LIMIT
            if not any(reservation.state == "open" for reservation in self.model):
                assert account.idle


Reserving.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestReserving = Reserving.TestCase


def test_of_calls_at_the_same_time_no_more_pass_than_fit() -> None:
    desk, account = Desk(), Account({"tokens": Decimal(30)})
    begin = threading.Barrier(16)
    passed: list[Reservation] = []

    def call() -> None:
        begin.wait()
        for _ in range(50):
            made = desk.reserve(lambda _: [account], amount(1))
            if isinstance(made, Reservation):
                passed.append(made)

    threads = [threading.Thread(target=call) for _ in range(16)]
    [thread.start() for thread in threads]  # type: ignore[func-returns-value]
    [thread.join() for thread in threads]  # type: ignore[func-returns-value]
    assert len(passed) == 30


def test_a_stream_that_ends_inside_of_a_reservation_neither_waits_nor_is_lost() -> None:
    """As the garbage collector ends one."""
    desk, account = Desk(), Account({"tokens": Decimal(10)})
    first = desk.reserve(lambda _: [account], amount(10))
    assert isinstance(first, Reservation)

    def find(_: float) -> list[Account]:
        desk.settle(first, amount(4))
        return [account]

    assert isinstance(desk.reserve(find, amount(6)), Short), "what ends meanwhile counts from the next call on"
    assert isinstance(desk.reserve(lambda _: [account], amount(6)), Reservation)


def test_a_reservation_that_is_never_settled_is_spent_and_put_right_later() -> None:
    now = [0.0]
    desk, account = Desk(lambda: now[0]), Account({"tokens": Decimal(10)})
    lost = desk.reserve(lambda _: [account], amount(8))
    assert isinstance(lost, Reservation)
    now[0] = RESERVED_S + 1
    (seen,) = desk.look(lambda _: [account])
    assert (int(seen.spent["tokens"]), int(seen.reserved["tokens"]), desk.expired) == (8, 0, 1)
    desk.settle(lost, amount(3))
    (seen,) = desk.look(lambda _: [account])
    assert seen.spent["tokens"] == 3


def test_far_means_that_many_such_calls_fit() -> None:
    desk, account = Desk(), Account({"tokens": Decimal(100)})
    assert isinstance(desk.reserve(lambda _: [account], amount(100 // FAR + 1), far=True), Short)
    assert isinstance(desk.reserve(lambda _: [account], amount(100 // FAR), far=True), Reservation)
    assert account.reserved["tokens"] == 100 // FAR


def test_what_has_no_price_is_held_against_tokens_alone() -> None:
    account = Account({"usd": Decimal(0), "tokens": Decimal(10)})
    assert account.exceeded(amount(10, None)) is None
    assert account.exceeded(amount(11, None)) == "tokens"
    assert account.exceeded(amount(1, "0.000000000001")) == "usd"


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 5), st.booleans()), max_size=80))
def test_sessions_are_bounded_and_those_in_use_stay(calls: list[tuple[int, float, bool]]) -> None:
    sessions = Accounts(lambda _: Account({"tokens": Decimal(10)}), most=2, idle_s=20)
    now = 0.0
    held: dict[int, Account] = {}
    for number, seconds, hold in calls:
        now += seconds
        account = sessions.of(str(number), now)
        assert held.get(number, account) is account, "one that is reserved of isn't forgotten"
        if hold:
            account.reserve(amount(1))
            held[number] = account
        assert len(sessions) <= 2 + len(held) + 1


def test_a_session_that_was_idle_begins_anew() -> None:
    sessions = Accounts(lambda _: Account({"tokens": Decimal(10)}), most=5, idle_s=20)
    first = sessions.of("s", 0)
    first.spend(amount(10), 0)
    assert sessions.of("s", 20) is first
    assert sessions.of("s", 41).spent["tokens"] == 0
