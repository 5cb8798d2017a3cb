"""Rules: what they find in known data, what they leave alone, and when it is over."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from clickhouse_connect.driver.client import Client
from entries import Entry, Ledger, a_ledger

from tallystick.alerts.config_rules import (
    AnomalyRule,
    CostPerSuccessRule,
    Figure,
    LatencyRule,
    NoDataRule,
    UnpricedRule,
)
from tallystick.alerts.rules import Change, Finding, Open, anomaly, due, latency, look, settle, silence, success, unpriced
from tallystick.alerts.rules.anomaly import Hour, Hours

NOW = datetime(2026, 3, 18, 12, 30, tzinfo=UTC)
"""A Wednesday."""
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def rule(kind: type[Any], **fields: Any) -> Any:
    return kind(name="watch", notify=("team",), **fields)


def hour(cost: float = 0, calls: int = 1000, *, tokens: int = 0, errors: int = 0, cached: int = 0, inputs: int = 0) -> Hour:
    return Hour(Decimal(str(round(cost, 6))), tokens, calls, errors, cached, inputs)


def hours(now: Hour | None, before: Sequence[Hour | None]) -> Hours:
    return Hours("acme", NOW.replace(minute=0) - HOUR, now, (tuple(before),) * 7)


TEN = [hour(10 + n % 3) for n in range(12)]
"""Twelve hours of 10 to 12 USD."""
CALM = [hour(10, errors=10 + n % 3, cached=500 + n, inputs=1000, tokens=2_000_000 + 1000 * n) for n in range(12)]


@pytest.mark.parametrize(
    ("figure", "now", "before", "mark"),
    [
        pytest.param(Figure.SPEND, hour(40), TEN, "spend:high", id="four times the usual"),
        pytest.param(Figure.SPEND, hour(2), TEN, "spend:low", id="a fifth of it"),
        pytest.param(Figure.SPEND, None, TEN, "spend:low", id="nothing at all"),
        pytest.param(Figure.SPEND, hour(18), TEN, None, id="less than twice"),
        pytest.param(Figure.SPEND, hour(12), TEN, None, id="as ever"),
        pytest.param(
            Figure.SPEND, hour(40), [hour(c) for c in (5, 40, 12, 1, 33, 9, 60, 3, 20, 8, 35, 15)], None, id="what varies wildly"
        ),
        pytest.param(Figure.SPEND, hour(40), [*TEN[:9], *[hour(400)] * 3], "spend:high", id="with old outliers in the history"),
        pytest.param(
            Figure.SPEND, hour(25.35), [hour(c) for c in (8, 9, 10, 11, 12, 13)], None, id="six hours seem calmer than they are"
        ),
        pytest.param(Figure.SPEND, hour(0.9), [hour(0.01)] * 12, None, id="cents"),
        pytest.param(Figure.SPEND, hour(40), TEN[:5], None, id="too little history"),
        pytest.param(Figure.SPEND, hour(40), [None] * 9 + TEN[:3], None, id="a value that began last week"),
        pytest.param(Figure.SPEND, hour(40), [*TEN[:3], *[None] * 6, *TEN[:3]], None, id="a value that is here only sometimes"),
        pytest.param(Figure.SPEND, hour(40), [], None, id="no history"),
        pytest.param(Figure.TOKENS_PER_CALL, hour(10, tokens=6_000_000), CALM, "tokens_per_call:high", id="tokens tripled"),
        pytest.param(Figure.TOKENS_PER_CALL, hour(10, tokens=3_000_000), CALM, None, id="half as many again"),
        pytest.param(Figure.TOKENS_PER_CALL, None, CALM, None, id="no calls have no tokens a call"),
        pytest.param(Figure.ERROR_SHARE, hour(10, errors=200), CALM, "error_share:high", id="a fifth fails"),
        pytest.param(Figure.ERROR_SHARE, hour(10, errors=20), CALM, None, id="ten errors more"),
        pytest.param(Figure.ERROR_SHARE, hour(10, errors=0), [hour(10, errors=300)] * 12, None, id="fewer errors are no alarm"),
        pytest.param(Figure.ERROR_SHARE, hour(10, calls=4, errors=1), CALM, None, id="one of four is chance"),
        pytest.param(
            Figure.CACHE_HIT_SHARE, hour(10, cached=10, inputs=1000), CALM, "cache_hit_share:low", id="the cache is lost"
        ),
        pytest.param(Figure.CACHE_HIT_SHARE, hour(10, cached=990, inputs=1000), CALM, None, id="more hits are no alarm"),
        pytest.param(Figure.ERROR_SHARE, hour(0.5, errors=900), [hour(0.5, errors=10)] * 12, None, id="beneath the floor"),
    ],
)
def test_anomalies(figure: Figure, now: Hour | None, before: Sequence[Hour | None], mark: str | None) -> None:
    found = anomaly.judge(rule(AnomalyRule, figure=figure), hours(now, before), NOW)
    assert (found and found.mark) == mark


def test_differences_of_less_than_the_floor_are_left_alone() -> None:
    watch = rule(AnomalyRule, sensitivity=1, floor=5)
    assert anomaly.judge(watch, hours(hour(7.9), [hour(3)] * 12), NOW) is None
    assert anomaly.judge(watch, hours(hour(8.1), [hour(3)] * 12), NOW) is not None


def test_a_weekday_may_be_wilder_than_the_others() -> None:
    wild = [hour(cost) for cost in (5, 40, 12, 1, 33, 9, 60, 3, 20, 8, 35, 15)]
    watched = hours(hour(60), TEN)
    assert anomaly.judge(rule(AnomalyRule), watched, NOW) is not None
    assert anomaly.judge(rule(AnomalyRule), replace(watched, before=(tuple(wild), *watched.before[1:])), NOW) is None


def test_an_anomaly_says_what_is_usual() -> None:
    found = anomaly.judge(rule(AnomalyRule), hours(hour(40), TEN), NOW)
    assert found
    assert (found.value, found.since, found.observed, found.usual) == (
        "acme",
        datetime(2026, 3, 18, 11, tzinfo=UTC),
        Decimal("40.00"),
        Decimal("11.00"),
    )
    assert found.reason == "The spend of 2026-03-18 11:00 UTC came to 40.00 USD; in 12 like hours before, 11.00 USD was usual."


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.6], ids=["calm", "usual", "wild"])
@pytest.mark.parametrize("odd", [0, 0.05], ids=["lognormal", "after odd hours"])
def test_noise_is_left_alone(spread: float, odd: float) -> None:
    """A value's noise is an alarm less than once in four weeks, at every hour of half a year."""
    chance = random.Random(f"{spread} {odd}")
    watch, weeks, values = rule(AnomalyRule), 26, 7

    def spent(shape: float) -> Hour:
        return hour(shape * math.exp(chance.gauss(0, spread)))

    def passed(one: Hour) -> Hour:
        return hour(float(one.cost) * 20) if chance.random() < odd else one

    alarms = looks = 0
    for _ in range(values):
        shapes = [20 + 15 * chance.random() for _ in range(168)]
        year = [spent(shapes[at % 168]) for at in range(168 * weeks)]
        for at in range(168 * 4 + 1, len(year), 7):
            before = tuple(
                tuple(
                    year[at - 24 * day - 168 * week + side]
                    for week in range(4 - (day > 0), -(day > 0), -1)
                    for side in (-1, 0, 1)
                )
                for day in range(7)
            )
            alarms += anomaly.judge(watch, Hours("", NOW, year[at], before), NOW) is not None
            looks += 1
    assert alarms / looks * 168 < 0.25
    assert looks > 3_000


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_an_hour_is_compared_with_those_of_its_place_in_the_week(zone: str) -> None:
    """Also when the clocks were changed in between: Berlin on the 29th of March, New York on the 8th."""
    for start in (datetime(2026, 3, 30, 7, tzinfo=UTC), datetime(2026, 3, 11, 15, tzinfo=UTC)):
        before, *others = anomaly.hours_before(rule(AnomalyRule, timezone=zone, weeks=2), start)
        wall = start.astimezone(ZoneInfo(zone))
        local = [one.astimezone(ZoneInfo(zone)) for one in before]
        assert [(one.weekday(), one.hour - wall.hour) for one in local] == [
            (wall.weekday(), side) for _ in range(2) for side in (-1, 0, 1)
        ]
        assert [(wall.date() - one.date()).days for one in local] == [14] * 3 + [7] * 3
        assert [(wall.date() - day[4].astimezone(ZoneInfo(zone)).date()).days for day in others] == [1, 2, 3, 4, 5, 6]
        assert [len(day) for day in others] == [6] * 6


def test_an_hour_is_looked_at_when_its_calls_have_ended() -> None:
    assert anomaly.hour_in_question(datetime(2026, 3, 18, 12, 4, 59, tzinfo=UTC)).hour == 10
    assert anomaly.hour_in_question(datetime(2026, 3, 18, 12, 5, tzinfo=UTC)).hour == 11


@pytest.mark.parametrize(
    ("calls", "slow", "lately", "slow_lately", "found"),
    [
        pytest.param(1000, 100, 80, 8, True, id="twice what may be"),
        pytest.param(1000, 99, 80, 8, False, id="just below"),
        pytest.param(1000, 500, 80, 4, False, id="over lately: five of a hundred may"),
        pytest.param(1000, 60, 80, 80, False, id="only lately"),
        pytest.param(1000, 500, 0, 0, False, id="nothing lately"),
        pytest.param(19, 19, 5, 5, False, id="too few"),
    ],
)
def test_latency_burns_in_both_windows(calls: int, slow: int, lately: int, slow_lately: int, found: bool) -> None:
    judged = latency.judge(rule(LatencyRule, ttft_ms=800), latency.Latencies("acme", calls, slow, lately, slow_lately), NOW)
    assert (judged is not None) == found
    if judged:
        assert judged.reason == (
            "100 of 1000 calls waited longer than 800 ms for their first token: 10.0 %, where 5 % may. That is 2.0 times too fast."
        )
        assert judged.since == NOW.replace(minute=0)


@pytest.mark.parametrize(
    ("cost", "calls", "succeeded", "found"),
    [
        ("10", 100, 99, True),
        ("9.9", 100, 99, False),
        ("9.9", 100, 50, True),
        ("0.2", 100, 0, True),
        ("0", 100, 0, False),
        ("10", 19, 1, False),
    ],
)
def test_cost_per_success(cost: str, calls: int, succeeded: int, found: bool) -> None:
    judged = success.judge(
        rule(CostPerSuccessRule, at_most=Decimal("0.1")), success.Successes("", Decimal(cost), calls, succeeded), NOW
    )
    assert (judged is not None) == found


@pytest.mark.parametrize(
    ("tokens", "without", "found"), [(100_000, 5_001, True), (100_000, 5_000, False), (9_999, 9_999, False), (0, 0, False)]
)
def test_unpriced_share(tokens: int, without: int, found: bool) -> None:
    judged = unpriced.judge(rule(UnpricedRule), unpriced.Coverage("", tokens, without, ("gpt-6", "")), NOW)
    assert (judged is not None) == found
    if judged:
        assert judged.reason.endswith("most are of these models: gpt-6, without a name.")


def silent(since: timedelta, known: timedelta = 20 * DAY, day: int = 9, week: int = 9, two_weeks: int = 9) -> silence.Silence:
    return silence.Silence("acme", NOW - since, NOW - since - known, day, week, two_weeks)


@pytest.mark.parametrize(
    ("silence_", "found"),
    [
        pytest.param(silent(30 * MINUTE), True, id="for long enough"),
        pytest.param(silent(29 * MINUTE), False, id="not yet"),
        pytest.param(silent(5 * DAY), True, id="it lasts"),
        pytest.param(silent(8 * DAY), False, id="given up"),
        pytest.param(silent(HOUR, week=4), False, id="last week it was as quiet"),
        pytest.param(silent(HOUR, two_weeks=0), False, id="two weeks ago it was"),
        pytest.param(silent(HOUR, known=10 * DAY, two_weeks=0), True, id="two weeks ago it wasn't there"),
        pytest.param(silent(HOUR, known=2 * DAY, week=0, two_weeks=0), True, id="new, and busy yesterday"),
        pytest.param(silent(HOUR, known=2 * DAY, day=0, week=9), False, id="new, and silent yesterday"),
        pytest.param(silent(HOUR, known=2 * HOUR), False, id="a first attempt"),
    ],
)
def test_silence(silence_: silence.Silence, found: bool) -> None:
    judged = silence.judge(rule(NoDataRule), silence_, NOW)
    assert (judged is not None) == found
    assert judged is None or judged.since == silence_.last


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Ledger]:
    with a_ledger(chdb_client, chdb_path) as opened:
        yield opened


def weeks_of(usual: Entry, minutes: int = 6, until: datetime = NOW) -> list[Entry]:
    """Calls in office hours from Monday to Friday, for five weeks."""
    start = datetime(2026, 2, 9, tzinfo=UTC)
    steps = (until - start) // (minutes * MINUTE)
    moments = (start + n * minutes * MINUTE for n in range(steps))
    return [replace(usual, at=at, trace=int(at.timestamp())) for at in moments if at.weekday() < 5 and 8 <= at.hour < 18]


def found_in(ledger: Ledger, entries: Sequence[Entry], watch: Any, now: datetime = NOW) -> list[Finding]:
    ledger.forget()
    ledger.enter(entries)
    return look(ledger.ask, watch, now)


ACME = Entry(NOW, Decimal("0.5"), customer="acme", ttft_ms=300, tokens=(500, 500, None, None, 100))
GLOBEX = replace(ACME, customer="globex")
BUSY = [*weeks_of(ACME), *weeks_of(GLOBEX)]
LAST_HOUR = NOW.replace(minute=0) - HOUR


class TestOnTheLedger:
    def test_calm_weeks_find_nothing(self, ledger: Ledger) -> None:
        for watch in (
            *(rule(AnomalyRule, figure=figure, each="customer") for figure in Figure),
            rule(LatencyRule, ttft_ms=800), rule(CostPerSuccessRule, at_most="0.6"), rule(NoDataRule, each="customer"), rule(UnpricedRule, minimum_tokens=1),
        ):  # fmt: skip
            assert found_in(ledger, BUSY, watch) == [], watch

    @pytest.mark.parametrize(
        ("figure", "odd", "observed", "usual"),
        [
            (Figure.SPEND, {"cost": Decimal(9)}, "95.00", "5.00"),
            (Figure.TOKENS_PER_CALL, {"tokens": (90_000, None, None, None, 0)}, "45550", "1100"),
            (Figure.ERROR_SHARE, {"status": "error"}, "50.0", "0.0"),
            (Figure.CACHE_HIT_SHARE, {"tokens": (90_000, 0, None, None, 100)}, "0.5", "50.0"),
        ],
    )
    @pytest.mark.parametrize("each", ["customer", None])
    def test_anomaly(
        self, ledger: Ledger, figure: Figure, odd: dict[str, Any], observed: str, usual: str, each: str | None
    ) -> None:
        odd_calls = [replace(ACME, at=LAST_HOUR + n * 5 * MINUTE, **odd) for n in range(10)]
        watch = rule(AnomalyRule, figure=figure, each=each, scope={} if each else {"customer": ("acme",)})
        (one,) = found_in(ledger, [*BUSY, *odd_calls], watch)
        assert (one.value, one.since, one.observed, one.usual) == (
            "acme" if each else "",
            LAST_HOUR,
            Decimal(observed),
            Decimal(usual),
        )
        assert look(ledger.ask, watch, NOW + HOUR) == [] or figure is Figure.SPEND

    def test_latency(self, ledger: Ledger) -> None:
        slow = [replace(ACME, at=NOW - n * MINUTE, ttft_ms=801) for n in range(1, 10)]
        slow += [replace(slow[0], entry="void", calls=-1), slow[0]]
        untold = [replace(ACME, at=NOW - n * MINUTE, ttft_ms=None) for n in range(1, 50)]
        watch = rule(LatencyRule, ttft_ms=800, each="customer", minimum_calls=10)
        (one,) = found_in(ledger, [*BUSY, *slow, *untold], watch)
        assert one.value == "acme"
        assert one.reason.startswith("9 of 19 calls waited longer than 800 ms")
        assert look(ledger.ask, watch, NOW + 20 * MINUTE) == []

    def test_cost_per_success(self, ledger: Ledger) -> None:
        failed = [replace(ACME, at=NOW - n * MINUTE, status="error") for n in range(1, 30)]
        (one,) = found_in(ledger, [*BUSY, *failed], rule(CostPerSuccessRule, at_most="0.6", each="customer"))
        assert (one.value, one.observed) == ("acme", Decimal("0.5") * 39 / 10)

    def test_unpriced(self, ledger: Ledger) -> None:
        new = [replace(ACME, at=NOW - n * MINUTE, cost=None, model="gpt-6") for n in range(1, 30)]
        (one,) = found_in(ledger, [*BUSY, *new], rule(UnpricedRule))
        assert one.value == ""
        assert one.observed == Decimal(100 * 29) / (29 + 2 * 100)
        assert "gpt-6" in one.reason

    @pytest.mark.parametrize("each", ["customer", None])
    def test_silence_of_one_while_others_go_on(self, ledger: Ledger, each: str | None) -> None:
        stopped = NOW - 40 * MINUTE
        entries = [*weeks_of(ACME, minutes=3, until=stopped), *weeks_of(GLOBEX)]
        watch = rule(NoDataRule, each=each, scope={} if each else {"customer": ("acme",)})
        (one,) = found_in(ledger, entries, watch)
        assert (one.value, one.usual) == ("acme" if each else "", Decimal(10))
        assert stopped - 6 * MINUTE <= one.since < stopped
        assert [two.value for two in silence.figures(ledger.ask, watch, NOW)] == [one.value]
        # The same one, hours later; then the calls come again.
        assert look(ledger.ask, watch, NOW + 3 * HOUR)[0].since == one.since
        ledger.enter([replace(ACME, at=NOW + 3 * HOUR)])
        assert [two for two in look(ledger.ask, watch, NOW + 3 * HOUR) if two.value == one.value] == []

    def test_nights_and_weekends_are_silent_without_a_word(self, ledger: Ledger) -> None:
        ledger.forget()
        ledger.enter(BUSY)
        watch = rule(NoDataRule, each="customer")
        monday = datetime(2026, 3, 2, 7, 59, tzinfo=UTC)
        for now in (monday - n * 7 * HOUR for n in range(10)):
            ledger.forget()
            ledger.enter([one for one in BUSY if one.at < now])
            assert look(ledger.ask, watch, now) == [], now

    def test_odd_values(self, ledger: Ledger) -> None:
        odd = "it's a \\ \t {p0:String}"
        watch = rule(
            CostPerSuccessRule,
            at_most="0.1",
            minimum_calls=1,
            each="tag:" + odd,
            scope={"tag:" + odd: (odd, "other"), "status": ("ok",)},
        )
        (one,) = found_in(ledger, [replace(ACME, at=NOW - MINUTE, tags={odd: odd}), replace(ACME, at=NOW - MINUTE)], watch)
        assert one.value == odd

    def test_an_empty_ledger_finds_nothing(self, ledger: Ledger) -> None:
        ledger.forget()
        for watch in (
            rule(AnomalyRule),
            rule(LatencyRule, ttft_ms=1),
            rule(CostPerSuccessRule, at_most=1),
            rule(NoDataRule),
            rule(UnpricedRule),
        ):
            assert look(ledger.ask, watch, NOW) == []


def finding(value: str = "acme", mark: str = "slow", since: datetime = NOW) -> Finding:
    return Finding(value, mark, since, "", Decimal(2), Decimal(1))


@pytest.mark.parametrize(
    ("findings", "open_", "change"),
    [
        pytest.param([finding()], [], Change((finding(),), ()), id="new"),
        pytest.param([finding(since=NOW + HOUR)], [Open("acme", "slow")], Change((), ()), id="it lasts"),
        pytest.param([], [Open("acme", "slow")], Change((), (Open("acme", "slow"),)), id="over"),
        pytest.param(
            [finding("globex")], [Open("acme", "slow")], Change((finding("globex"),), (Open("acme", "slow"),)), id="another value"
        ),
        pytest.param(
            [finding(mark="spend:low")], [Open("acme", "spend:high")], Change((finding(mark="spend:low"),), ()), id="turned round"
        ),
    ],
)
def test_what_has_changed(findings: list[Finding], open_: list[Open], change: Change) -> None:
    assert settle(findings, open_) == change


def test_an_anomaly_is_looked_for_once_an_hour_and_others_every_minute() -> None:
    watch = rule(AnomalyRule)
    assert due(watch, None, NOW)
    assert not due(watch, NOW, NOW + 30 * MINUTE)
    assert due(watch, NOW, NOW + 35 * MINUTE)
    latency_ = rule(LatencyRule, ttft_ms=1)
    assert not due(latency_, NOW, NOW + 59 * timedelta(seconds=1))
    assert due(latency_, NOW, NOW + MINUTE)
    assert due(latency_, NOW, NOW - MINUTE), "the clock was set back"
