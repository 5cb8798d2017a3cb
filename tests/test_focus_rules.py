"""FOCUS files against the specification: types, nulls, allowed values and what binds columns, for each version and format."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import focus_ledger as data
import pytest

from tallystick.attribution.focus.columns import VERSIONS, Column, Rule, UnknownVersion, columns, rules
from tallystick.attribution.focus.question import SETTINGS, Form, Question, days, stream, tally
from tallystick.attribution.moments import nanoseconds

if TYPE_CHECKING:
    from tallystick.ingest.store import Store

Rows = list[dict[str, Any]]
SINCE = nanoseconds(datetime(2026, 10, 1, tzinfo=UTC))
UNTIL = nanoseconds(datetime(2026, 11, 1, tzinfo=UTC))
TENANT = "focus-rules"
FORMS: tuple[Form, ...] = ("parquet", "csv")
FILES = [(version, form) for version in VERSIONS for form in FORMS]
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "Decimal": Decimal, "String": str, "JSON": dict, "Date/Time": datetime, "Integer": int, "Boolean": bool,
}  # fmt: skip


@pytest.fixture(scope="module")
def ledger(chdb_store: "Store") -> "Iterator[Store]":
    data.enter_prices(chdb_store.client())
    data.enter(chdb_store.client(), TENANT, data.EVERY_KIND)
    yield chdb_store
    data.forget(chdb_store.client(), TENANT)


@pytest.fixture(scope="module")
def file(ledger: "Store") -> Callable[[str, Form], Rows]:
    """(version, format) → rows of the file, made once."""
    made: dict[tuple[str, str], Rows] = {}

    def of(version: str, form: Form) -> Rows:
        if (version, form) not in made:
            with ledger.reader(TENANT, SETTINGS) as reader:
                content = b"".join(stream(reader, Question(version, SINCE, UNTIL, "hourly"), form))
            made[version, form] = data.read(content, form, version)
        return made[version, form]

    return of


@pytest.mark.parametrize(("version", "form"), FILES)
def test_a_file_has_the_columns_of_its_version(file: Callable[[str, Form], Rows], version: str, form: Form) -> None:
    rows = file(version, form)
    assert list(rows[0]) == [column.name for column in columns(version)]
    assert {row["x_Entry"] for row in rows} == {"call", "void", "reprice", "trueup", "allocation"}


@pytest.mark.parametrize(
    ("version", "form", "column"),
    [pytest.param(*f, column, id=f"{f[0]}-{f[1]}-{column.name}") for f in FILES for column in columns(f[0])],
)
def test_type_nulls_and_allowed_values(file: Callable[[str, Form], Rows], version: str, form: Form, column: Column) -> None:
    for row in file(version, form):
        value = row[column.name]
        if value is None:
            assert column.nulls, f"{column.name} is null in {row}"
            continue
        assert isinstance(value, TYPES[column.type]), value
        assert value != ""
        if column.values:
            assert value in column.values
        if column.type == "Date/Time":
            assert isinstance(value, datetime)
            assert value.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("version", "form", "rule"),
    [pytest.param(*f, rule, id=f"{f[0]}-{f[1]}-{rule.column} {rule.must}") for f in FILES for rule in rules(f[0])],
)
def test_what_binds_columns(file: Callable[[str, Form], Rows], version: str, form: Form, rule: Rule) -> None:
    concerned = [row for row in file(version, form) if applies(rule, row)]
    if rule.when.get("ChargeCategory") != ["Purchase", "Tax", "Credit"]:
        assert concerned, "no row shows whether it holds"
    for row in concerned:
        assert holds(rule, row), row


def applies(rule: Rule, row: Mapping[str, Any]) -> bool:
    def among(names: Mapping[str, Sequence[str]], name: str) -> bool:
        return (row[name] if row[name] is not None else "") in names[name]

    return all(among(rule.when, name) for name in rule.when) and not any(among(rule.unless, name) for name in rule.unless)


def holds(rule: Rule, row: Mapping[str, Any]) -> bool:
    value = row[rule.column]
    match rule.must.split():
        case ["null"]:
            return value is None
        case ["not", "null"]:
            return value is not None
        case [">=", "0"]:
            return value is None or value >= 0
        case ["<", other]:
            return bool(value < row[other])
        case ["=", other]:
            return bool(value == row[other])
        case ["=", one, "*", other]:
            return bool(value == row[one] * row[other])
        case _:
            raise AssertionError(f"no such rule: {rule.must}")


@pytest.mark.parametrize(("version", "form"), FILES)
def test_the_sum_is_the_ledgers(ledger: "Store", file: Callable[[str, Form], Rows], version: str, form: Form) -> None:
    rows = file(version, form)
    expected = sum((one.cost_usd() or Decimal(0) for one in data.EVERY_KIND), Decimal(0))
    assert data.total(rows) == expected
    assert data.total(rows, "EffectiveCost") == expected
    assert sum(row["x_Calls"] for row in rows) == sum(one.calls for one in data.EVERY_KIND)
    question = Question(version, SINCE, UNTIL, "hourly")
    with ledger.reader(TENANT, SETTINGS) as reader:
        assert tally(reader, question) == (len(rows), expected)
        (day,) = days(reader, question)
    assert (day.day, day.entries, day.cost_usd) == ("2026-10-03", len(data.EVERY_KIND), expected)


def test_tokens_are_the_ledgers_by_type(file: Callable[[str, Form], Rows]) -> None:
    rows = [row for row in file("1.2", "parquet") if row["ConsumedUnit"] == "Tokens"]
    by_type = dict.fromkeys(("cache_read", "cache_write_5m", "cache_write_1h"), 0)
    everything = Decimal(0)
    for row in rows:
        everything += row["ConsumedQuantity"]
        if row["x_TokenType"] in by_type:
            by_type[row["x_TokenType"]] += int(row["ConsumedQuantity"])
    for kind, count in by_type.items():
        assert count == sum(one.calls * one.tokens.get(f"{kind}_tokens", 0) for one in data.EVERY_KIND), kind
    wholes = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
    assert everything == sum(one.calls * one.tokens.get(name, 0) for one in data.EVERY_KIND for name in wholes)


def test_names_of_sku_agree_with_each_other(file: Callable[[str, Form], Rows]) -> None:
    for parent, child in (("SkuId", "SkuPriceId"), ("SkuMeter", "SkuId"), ("SkuPriceDetails", "SkuPriceId")):
        found: dict[str, set[str]] = {}
        for row in file("1.4", "parquet"):
            if row[child] is not None:
                found.setdefault(row[child], set()).add(str(row[parent]))
        assert all(len(parents) == 1 for parents in found.values()), (parent, child)


def test_corrections_say_what_they_are(file: Callable[[str, Form], Rows]) -> None:
    rows = file("1.4", "parquet")
    kinds = {
        (row["x_Entry"], row["x_Correction"], row["ChargeCategory"], row["ChargeClass"], row["BillingPeriodStart"].month)
        for row in rows
    }
    assert kinds == {
        ("call", None, "Usage", None, 10),
        ("void", None, "Usage", None, 10),
        ("void", "v1", "Usage", "Correction", 11),
        ("reprice", "r1", "Adjustment", None, 10),
        ("reprice", "r2", "Usage", "Correction", 11),
        ("reprice", "r3", "Usage", "Correction", 11),
        ("trueup", "t1", "Adjustment", "Correction", 11),
        ("allocation", "a1", "Adjustment", None, 10),
    }
    assert {row["ChargePeriodStart"].month for row in rows} == {10}
    (shared,) = (row for row in rows if row["x_Entry"] == "allocation")
    assert (shared["AllocatedMethodId"], shared["AllocatedResourceId"]) == ("overhead 20 %", "customer=acme,feature=chat")
    assert (shared["ServiceName"], shared["ServiceProviderName"]) == ("Shared cost", TENANT)
    (invoice,) = (row for row in rows if row["x_Entry"] == "trueup")
    assert (invoice["BilledCost"], invoice["SubAccountId"]) == (Decimal("0.5"), None)


def test_unpriced_usage_costs_nothing_and_says_so(file: Callable[[str, Form], Rows]) -> None:
    rows = [row for row in file("1.2", "parquet") if not row["x_Priced"] and row["x_Entry"] == "call"]
    assert {row["x_Model"] for row in rows} == {"-llama", "gpt-test"}
    assert all(row["BilledCost"] == row["ListCost"] == 0 for row in rows)
    assert all(row["SkuPriceId"].split(",")[2] == "unpriced" for row in rows)
    assert sum(row["ConsumedQuantity"] for row in rows if row["ConsumedUnit"] == "Tokens") == 1100
    refused = [row for row in file("1.2", "parquet") if row["x_UsageSource"] == "none"]
    assert [(row["x_Priced"], row["BilledCost"], row["x_Calls"]) for row in refused] == [(True, Decimal(0), 1)]


def test_the_list_price_is_the_public_one_where_the_file_has_another(file: Callable[[str, Form], Rows]) -> None:
    own = {row["x_TokenType"]: row for row in file("1.2", "parquet") if row["x_PriceId"] == data.OWN}
    assert (own["output"]["ListUnitPrice"], own["output"]["ContractedUnitPrice"]) == (Decimal(10), Decimal(10))
    assert (own["request"]["ListUnitPrice"], own["request"]["ContractedUnitPrice"]) == (Decimal(0), Decimal("0.0001"))
    public = [row for row in file("1.2", "parquet") if row["x_PriceId"] == data.PRICE]
    assert all(row["ListUnitPrice"] == row["ContractedUnitPrice"] for row in public if row["ListUnitPrice"] is not None)


def test_list_prices_that_change_within_a_day_make_rows_of_their_own(ledger: "Store") -> None:
    """DeepSeek's list price was lower from 16:30 to 00:30 UTC."""
    day = datetime(2025, 6, 1, tzinfo=UTC)
    seen = data.Entry(provider="deepseek", model="deepseek-chat", price_id=data.OWN, cost=Decimal("0.001"), customer="night")
    data.enter(ledger.client(), TENANT, [data.at(seen, at=day.replace(hour=hour)) for hour in (3, 10, 15, 17, 23)])
    question = Question("1.2", nanoseconds(day), nanoseconds(day + timedelta(days=1)), customer="night")
    with ledger.reader(TENANT, SETTINGS) as reader:
        rows = data.read(b"".join(stream(reader, question, "parquet")), "parquet", "1.2")
        assert tally(reader, question) == (len(rows), Decimal("0.005"))
    calls = {row["ListUnitPrice"]: row["ConsumedQuantity"] for row in rows if row["x_TokenType"] == "input"}
    assert len(calls) == 2
    assert sorted(calls.values()) == [2000, 3000]
    assert data.total(rows) == Decimal("0.005")


def test_tags_are_the_scopes_and_ours_have_a_prefix(file: Callable[[str, Form], Rows]) -> None:
    tags = [row["Tags"] for row in file("1.2", "csv") if row["Tags"]]
    assert {"plan": "pro", "tallystick/customer": "acme", "tallystick/feature": "chat"} in tags
    assert {"=1+1": "@SUM(A1)", "tallystick/feature": "=cmd|' /C calc'!A0"} in tags


def test_names_in_csv_are_no_formulas(ledger: "Store", file: Callable[[str, Form], Rows]) -> None:
    texts = [column.name for column in columns("1.2") if column.type in ("String", "JSON")]
    for row in file("1.2", "csv"):
        for name in texts:
            assert not str(row[name] or "").startswith(("=", "+", "-", "@", "\t", "\r")), row[name]
    assert {"'+1+cmd", "acme"} <= {row["SubAccountId"] for row in file("1.2", "csv")}
    assert {"+1+cmd", "acme"} <= {row["SubAccountId"] for row in file("1.2", "parquet")}


def test_csv_and_parquet_say_the_same(file: Callable[[str, Form], Rows]) -> None:
    def told(form: Form) -> list[list[str]]:
        return sorted([text(row[column.name]) for column in columns("1.4")] for row in file("1.4", form))

    def text(value: object) -> str:
        match value:
            case Decimal():
                return f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
            case datetime():
                return value.isoformat()
            case str():
                return value.removeprefix("'")
            case _:
                return str(value)

    assert told("csv") == told("parquet")


def test_charge_periods_are_hours_or_days(ledger: "Store", file: Callable[[str, Form], Rows]) -> None:
    assert {
        (row["ChargePeriodStart"].hour, row["ChargePeriodEnd"] - row["ChargePeriodStart"]) for row in file("1.2", "parquet")
    } == {
        (10, timedelta(hours=1)),
        (23, timedelta(hours=1)),
    }
    with ledger.reader(TENANT, SETTINGS) as reader:
        daily = data.read(b"".join(stream(reader, Question("1.2", SINCE, UNTIL), "parquet")), "parquet", "1.2")
    assert {(row["ChargePeriodStart"].hour, row["ChargePeriodEnd"] - row["ChargePeriodStart"]) for row in daily} == {
        (0, timedelta(days=1))
    }


def test_one_customer_and_as_it_was_known(ledger: "Store") -> None:
    known = data.OCTOBER_3.replace(hour=12)
    with ledger.reader(TENANT, SETTINGS) as reader:
        ours = data.read(b"".join(stream(reader, Question("1.2", SINCE, UNTIL, customer="+1+cmd"), "csv")), "csv", "1.2")
        before = data.read(b"".join(stream(reader, Question("1.2", SINCE, UNTIL, as_of=known), "csv")), "csv", "1.2")
    assert {row["SubAccountId"] for row in ours} == {"'+1+cmd"}
    expected = sum((one.cost_usd() or Decimal(0) for one in data.EVERY_KIND if one.entered_at < known), Decimal(0))
    assert data.total(before) == expected


def test_another_tenant_has_nothing(ledger: "Store") -> None:
    with ledger.reader("somebody", SETTINGS) as reader:
        assert days(reader, Question("1.2", SINCE, UNTIL)) == []
        assert data.read(b"".join(stream(reader, Question("1.2", SINCE, UNTIL), "csv")), "csv", "1.2") == []


@pytest.mark.parametrize("version", ["1.3", "2", "", "1.2.0"])
def test_an_unknown_version_is_told_which_there_are(version: str) -> None:
    with pytest.raises(UnknownVersion, match=r"there are 1\.2, 1\.4"):
        columns(version)
