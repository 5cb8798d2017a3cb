"""What a message says, in words: figures without noise, nothing that isn't known, nothing of what others named that isn't one line."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.alerts import figures
from tallystick.alerts.channels.sample import FULL, SPARSE
from tallystick.alerts.model import Driver, Forecast, Measure
from tallystick.alerts.text import DRIVERS, SQL, Fact, text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("1234.5", "1,234.50 USD"), ("100", "100.00 USD"), ("1", "1.00 USD"), ("0.999", "1.00 USD"), ("0.5", "0.50 USD"), ("0", "0.00 USD"),
        ("0.0042", "0.0042 USD"), ("0.00419", "0.0042 USD"), ("0.0001", "0.0001 USD"), ("0.000000000001", "0.000000000001 USD"),
        ("0.00000000000001", "0.00 USD"), ("-0.00000000000001", "0.00 USD"), ("-0.03", "-0.03 USD"), ("-1234.5", "-1,234.50 USD"),
        ("1E+2", "100.00 USD"), ("1e30", "1.00E+30 USD"), ("1E+999999", "1.00E+999999 USD"), ("1E-999999", "0.00 USD"),
    ],
)  # fmt: skip
def test_money(value: str, told: str) -> None:
    assert figures.amount(Decimal(value)) == told


@pytest.mark.parametrize(
    ("value", "measure", "told"),
    [
        ("1234567", Measure.TOKENS, "1,234,567 tokens"), ("1", Measure.TOKENS, "1 token"), ("0", Measure.CALLS, "0 calls"),
        ("1", Measure.CALLS, "1 call"), ("1e20", Measure.TOKENS, "1.00E+20 tokens"),
    ],
)  # fmt: skip
def test_counts(value: str, measure: Measure, told: str) -> None:
    assert figures.amount(Decimal(value), measure) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("80", "80 %"), ("80.44", "80.4 %"), ("99.99", "99.9 %"), ("100", "100 %"), ("137.6", "137 %"), ("1204.3", "1,204 %"), ("0", "0 %"),
        ("0.04", "< 0.1 %"), ("0.1", "0.1 %"), ("7.0", "7 %"), ("1E+2", "100 %"), ("1e30", "1.00E+30 %"), ("-3.25", "-3.2 %"),
    ],
)  # fmt: skip
def test_percent_never_tells_of_what_was_not_reached(value: str, told: str) -> None:
    assert figures.percent(Decimal(value)) == told


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_any_figure_is_short(value: Decimal) -> None:
    for told in (figures.amount(value), figures.amount(value, Measure.TOKENS), figures.percent(value), figures.times(value)):
        assert 0 < len(told) < 50


@pytest.mark.parametrize(
    ("minutes", "told"),
    [
        (9 * 1440 + 1439, "9 days"), (2880, "2 days"), (2879, "47 hours"), (120, "2 hours"), (119, "119 minutes"), (2, "2 minutes"),
        (1, "1 minute"), (0.5, "less than a minute"),
    ],
)  # fmt: skip
def test_time_left(minutes: float, told: str) -> None:
    assert figures.duration(timedelta(minutes=minutes)) == told


@pytest.mark.parametrize(
    ("value", "told"), [("1.16", "1.2"), ("12.4", "12"), ("0.04", "0.04"), ("1", "1"), ("0", "0"), ("1E+3", "1,000")]
)
def test_times(value: str, told: str) -> None:
    assert figures.times(Decimal(value)) == told


def test_all_that_is_known() -> None:
    told = text(FULL)
    assert told.title == "acme: 80 % of 100.00 USD used this month"
    assert told.facts == (
        Fact("Spent", "at least 80.40 of 100.00 USD (80.4 %)"),
        Fact("Period", "2026-03, 9 days left"),
        Fact("Forecast", "117.50 USD by the end of the period; 108.20 to 131.90 USD in 8 of 10 cases"),
        Fact("Burn rate", "1.2 times the plan"),
        Fact("Priced", "98.2 % of the tokens; what the others cost is not in the sum"),
        Fact("Scope", "customer acme"),
        Fact("Owners", "ana@example.com, platform team"),
    )
    assert [(line.name, line.change) for line in told.drivers] == [
        ("feature summaries", "up 34.82 USD from 11.30 USD"),
        ("agent researcher", "new"),
        ("model gpt-5-mini", "down 2.23 USD from 12.01 USD"),
        ("feature search", ""),
    ]
    assert told.drivers_title == "Top drivers, beside the same stretch of the last period"
    assert "50,000 tokens where 2,000 are usual: gpt-5, 0.42 USD" in told.outliers[0]
    assert told.sql == FULL.sql


def test_what_is_not_known_is_not_told() -> None:
    told = text(SPARSE)
    assert (told.facts, told.drivers, told.outliers, told.links, told.sql) == ((), (), (), (), "")
    assert text(replace(FULL, drivers=(Driver("agent", "a", Decimal(1), None, Decimal(1)),))).drivers_title == "Top drivers"
    no_cost = replace(FULL, outliers=(replace(FULL.outliers[0], cost=None),))
    assert "USD" not in text(no_cost).outliers[0]


def fact(label: str, **changed: object) -> str | None:
    return {fact.label: fact.value for fact in text(replace(FULL, **changed)).facts}.get(label)  # type: ignore[arg-type]


def test_at_least_only_where_something_has_no_price() -> None:
    assert fact("Spent", priced_share=Decimal(1)) == "80.40 of 100.00 USD (80.4 %)"
    assert fact("Priced", priced_share=Decimal(1)) == "100 % of the tokens"
    assert fact("Priced", priced_share=Decimal("0.99999")) == "99.9 % of the tokens; what the others cost is not in the sum"
    assert fact("Priced", priced_share=None) is None
    assert fact("Spent", priced_share=Decimal(0), spent=Decimal(0), percent=Decimal(0)) == "at least 0.00 of 100.00 USD (0 %)"


def test_budgets_of_tokens_speak_of_tokens() -> None:
    known = {"measure": Measure.TOKENS, "spent": Decimal(900_000), "amount": Decimal(1_000_000), "percent": Decimal(90)}
    assert fact("Tokens", **known) == "900,000 of 1,000,000 tokens (90 %)"
    assert fact("Priced", **known) is None
    forecast = Forecast(Decimal(1), Decimal(2), Decimal(3))
    assert fact("Forecast", **known, forecast=forecast) == "2 tokens by the end of the period; 1 to 3 tokens in 8 of 10 cases"


def test_a_period_that_has_ended_has_no_time_left() -> None:
    assert fact("Period", at=datetime(2026, 4, 1, tzinfo=UTC)) == "2026-03, has ended"


def test_hundreds_of_drivers_are_counted_not_listed() -> None:
    told = text(replace(FULL, drivers=FULL.drivers * 100))
    assert (len(told.drivers), told.more_drivers) == (DRIVERS, 400 - DRIVERS)


HOSTILE = "acme\r\nBcc: all@example.com\x1b[2J \u202egnp.exe\u2028next"


def test_names_are_one_line() -> None:
    name = "acme Bcc: all@example.com [2J gnp.exe next"
    told = text(replace(FULL, title=HOSTILE, scope={"customer": HOSTILE}, drivers=(replace(FULL.drivers[0], value=HOSTILE),)))
    assert told.title == name
    assert told.drivers[0].name == f"feature {name}"
    assert Fact("Scope", f"customer {name}") in told.facts
    assert text(replace(FULL, scope={"customer": ""})).facts[-2] == Fact("Scope", "customer (none)")


@given(st.text(st.characters(exclude_categories=()), max_size=500), st.integers(2, 200))
def test_a_line_is_a_line(name: str, most: int) -> None:
    told = figures.line(name, most)
    assert len(told) <= most
    assert not set(told) & set("\r\n\t\x00\x1b\u2028\u2029\u202e")
    told.encode()


def test_only_whole_links_that_can_be_opened() -> None:
    links = {
        "page": "https://a.example/x",
        "js": "javascript:alert(1)",
        "long": f"https://a.example/{'x' * 2000}",
        "two": "https://a.example/ x",
    }
    assert [link.url for link in text(replace(FULL, links=links)).links] == ["https://a.example/x"]


def test_long_sql_is_cut_and_says_so() -> None:
    told = text(replace(FULL, sql="SELECT 1\n  + 2\n" * 1000)).sql
    assert len(told) <= SQL
    assert told.startswith("SELECT 1\n  + 2\n")
    assert told.endswith("-- cut here: too long for a message")
