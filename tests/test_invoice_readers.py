"""Exports of providers become lines; what can't be read says where and why."""

import contextlib
import gzip
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.attribution.invoices.lines import BadInvoice, Invoice, InvoiceLine, combined, digest
from tallystick.attribution.invoices.names import item, known_model
from tallystick.attribution.invoices.read import read

FILES = Path(__file__).parent / "invoices"
FIRST = date(2026, 10, 1)
Told = tuple[str, str, str, int | None, Decimal | None]


def lines(name: str, rates: dict[str, Decimal] | None = None) -> list[InvoiceLine]:
    return list(combined([read((FILES / name).read_bytes(), name, rates or {})]).lines)


def told(found: list[InvoiceLine]) -> set[Told]:
    return {(one.provider, one.model or one.item, one.bucket, one.tokens, one.cost_usd) for one in found}


def usd(text: str) -> Decimal:
    return Decimal(text)


def test_openai_usage_is_disjoint_and_summed_over_groups() -> None:
    assert told(lines("openai_usage.json")) == {
        ("openai", "gpt-4o", "input", 650_000, None),
        ("openai", "gpt-4o", "cache_read", 400_000, None),
        ("openai", "gpt-4o", "output", 210_000, None),
    }


def test_openai_costs_by_line_item() -> None:
    found = lines("openai_costs.json")
    assert told(found) == {
        ("openai", "gpt-4o", "input", None, usd("1.625")),
        ("openai", "gpt-4o", "cache_read", None, usd("0.5")),
        ("openai", "gpt-4o", "output", None, usd("2.1")),
        ("openai", "web search tool calls", "", None, usd("0.25")),
    }
    assert max(line.decimals for line in found) == 12
    assert {line.day for line in found} == {FIRST}


def test_anthropic_usage_and_cents() -> None:
    assert told(lines("anthropic_usage.json")) == {
        ("anthropic", "claude-sonnet-4-5", "input", 100_000, None),
        ("anthropic", "claude-sonnet-4-5", "cache_read", 20_000, None),
        ("anthropic", "claude-sonnet-4-5", "cache_write_5m", 5_000, None),
        ("anthropic", "claude-sonnet-4-5", "cache_write_1h", 1_000, None),
        ("anthropic", "claude-sonnet-4-5", "output", 30_000, None),
    }
    assert told(lines("anthropic_costs.json")) == {
        ("anthropic", "claude-sonnet-4-5", "input", None, usd("0.3")),
        ("anthropic", "claude-sonnet-4-5", "cache_read", None, usd("0.006")),
        ("anthropic", "claude-sonnet-4-5", "output", None, usd("0.455")),
        ("anthropic", "Web Search Usage", "", None, usd("0.02")),
    }


def test_bedrock_in_cost_and_usage_reports() -> None:
    found = read((FILES / "cur2.csv").read_bytes(), "cur2.csv", {})
    assert told(list(combined([found]).lines)) == {
        ("aws", "claude-sonnet-4-6", "input", 1_501_000, usd("4.503")),
        ("aws", "claude-sonnet-4-6", "output", 200_000, usd("3")),
        ("aws", "Tax", "", None, usd("0.60")),
    }
    assert found.notes == ("cur2.csv: 1 lines of other services than Amazon Bedrock were left out",)
    assert told(lines("cur_legacy.csv")) == {
        ("aws", "nova-pro", "input", 10_000, usd("0.008")),
        ("aws", "nova-pro", "cache_read", 2_000, usd("0.0004")),
    }


def test_focus_of_any_provider() -> None:
    assert told(lines("focus.csv")) == {
        ("aws", "claude-sonnet-4-6", "input", 1_500_500, usd("4.5015")),
        ("openai", "gpt-5", "input", 200_000, usd("0.25")),
        ("openai", "Credit: Promotional credit", "", None, usd("-1.5")),
    }


def test_plain_csv_also_as_german_spreadsheets_write_it() -> None:
    assert told(lines("plain.csv")) == {
        ("openai", "gpt-5", "input", 100_000, None),
        ("openai", "gpt-5", "cache_read", 5_000, None),
        ("openai", "gpt-5", "output", 2_000, None),
        ("openai", "gpt-5", "", None, usd("0.15")),
        ("openai", "support plan", "", None, usd("0.20")),
    }
    found = lines("european.csv", {"EUR": Decimal("1.08")})
    assert told(found) == {("openai", "gpt-5", "input", 1_000_000, None), ("openai", "gpt-5", "", None, usd("1350.54"))}
    assert {line.currency for line in found} == {"EUR"}


def test_gzip_and_a_list_of_pages_and_pages_by_line_are_the_same() -> None:
    raw = (FILES / "openai_costs.json").read_bytes()
    page = json.loads(raw)
    for form in (gzip.compress(raw), json.dumps([page]).encode(), json.dumps({"report": "/v1", "page": page}).encode()):
        assert told(list(read(form, "f", {}).lines)) == told(lines("openai_costs.json"))


@pytest.mark.parametrize(
    ("provider", "name", "model", "bucket"),
    [
        ("openai", "gpt-4o-2024-08-06, input", "gpt-4o", "input"),
        ("openai", "GPT-4o mini, cached input", "gpt-4o-mini", "cache_read"),
        ("openai", "gpt-5-2025-08-07 batch, output", "gpt-5", "output"),
        ("openai", "text-embedding-3-small", "text-embedding-3-small", ""),
        ("openai", "file search", "", ""),
        ("anthropic", "Claude Sonnet 4.5 Usage - Input Tokens, Cache Write (1h)", "claude-sonnet-4-5", "cache_write_1h"),
        ("anthropic", "Claude Haiku 3.5 Usage - Output Tokens", "claude-3-5-haiku", "output"),
        ("aws", "USE1-Claude4Sonnet-cache-read-input-token-count-cross-region-global", "claude-sonnet-4", "cache_read"),
        ("aws", "USE1-openai.gpt-oss-120b-mantle-input-tokens-standard", "gpt-oss-120b", "input"),
        ("aws", "USE1-Nova2.0Lite-input-tokens-flex", "nova-2-lite", "input"),
        ("aws", "USE1-ModelUnit-Provisioned", "", ""),
    ],
)
def test_names_of_line_items(provider: str, name: str, model: str, bucket: str) -> None:
    found = item(provider, name)
    assert (known_model(provider, found.model) if found.model else "", found.bucket) == (model, bucket)


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("aws", "us.anthropic.claude-sonnet-4-6-20260101-v1:0", "claude-sonnet-4-6"),
        ("aws", "openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
        ("openai", "openai/gpt-4o-2024-11-20", "gpt-4o"),
        ("google", "models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("anthropic", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet"),
    ],
)
def test_calls_and_invoices_come_to_one_name(provider: str, name: str, model: str) -> None:
    assert known_model(provider, name) == model
    assert known_model(provider, model) == model


def test_what_stands_twice_is_kept_once() -> None:
    raw = (FILES / "openai_usage.json").read_bytes()
    once, twice = combined([read(raw, "a", {})]), combined([read(raw, "a", {}), read(raw, "b", {})])
    assert told(list(twice.lines)) == told(list(once.lines))
    assert twice.notes == ("b: 5 lines stand there twice or in a file before it, and were kept once",)
    assert digest(twice.lines) == digest(once.lines)


def test_a_report_that_changed_between_two_fetches_is_refused() -> None:
    raw = (FILES / "openai_usage.json").read_bytes()
    with pytest.raises(BadInvoice, match="with other amounts, what a: data"):
        combined([read(raw, "a", {}), read(raw.replace(b"200000", b"200001"), "b", {})])


def test_hours_and_the_day_they_make_are_refused() -> None:
    raw = (FILES / "openai_usage.json").read_bytes()
    hour = raw.replace(b'1790899200, "results": [\n', b'1790816400, "results": [\n')
    assert hour != raw
    with pytest.raises(BadInvoice, match="part of another bucket"):
        combined([read(raw, "a", {}), read(hour, "b", {})])


def test_two_sources_of_one_figure_are_refused() -> None:
    focus = read((FILES / "focus.csv").read_bytes(), "focus.csv", {})
    plain = read((FILES / "plain.csv").read_bytes(), "plain.csv", {})
    with pytest.raises(BadInvoice, match=r"states the .* of gpt-5 on 2026-10-01, as"):
        combined([focus, plain])


CASES = {
    "half a file": (b'{"object": "page", "data": [{"object": "bu', "f:1: isn't whole JSON; nothing of it was used"),
    "half of the last page": (
        b'{"report": "/v1", "page": {"object": "page", "data": []}}\n{"report": "/v1", "pa',
        "f:2: isn't whole JSON; 1 pages before it are whole, and weren't used",
    ),
    "nothing": (b"\n", "is empty"),
    "an image": (b"\x89PNG\xff\xfe\x00", "isn't text in UTF-8"),
    "parquet": (b"PAR1....", "is Parquet"),
    "other columns": (b"date,amount\n2026-10-01,1\n", "has columns of no known export"),
    "a misspelt column": (b"day,provider,input_token,cost_usd\n2026-10-01,openai,1,1\n", "'input_token' is no column"),
    "no figures": (b"day,provider,model\n2026-10-01,openai,gpt-5\n", "has no column 'cost_usd'"),
    "half a row": (b"day,provider,model,cost_usd\n2026-10-01,openai,gpt-5,1\n2026-10-02,ope", "f:3: has 2 cells"),
    "half a quoted cell": (b'day,provider,model,cost_usd\n2026-10-01,openai,"gpt', "isn't CSV"),
    "a column twice": (b"day,provider,cost_usd,cost_usd\n", "two columns 'cost_usd'"),
    "negative tokens": (
        b"day,provider,model,input_tokens\n2026-10-01,openai,gpt-5,-5\n",
        "f:2, input_tokens: -5 tokens: less than none",
    ),
    "a fraction of a token": (b"day,provider,model,input_tokens\n2026-10-01,openai,gpt-5,1.5\n", "no whole number of tokens"),
    "a word for an amount": (b"day,provider,model,cost_usd\n2026-10-01,openai,gpt-5,n/a\n", "'n/a' is no amount"),
    "infinite": (b"day,provider,model,cost_usd\n2026-10-01,openai,gpt-5,Infinity\n", "is no amount"),
    "another currency": (b"day,provider,model,cost,currency\n2026-10-01,openai,gpt-5,1,EUR\n", "the amount is in EUR"),
    "no day": (b"day,provider,model,cost_usd\n31.10.2026,openai,gpt-5,1\n", "day is '31.10.2026', which is no day"),
    "nobody's": (b"day,provider,model,cost_usd\n2026-10-01,,gpt-5,1\n", "'' is no provider"),
    "a unit of nothing": (
        b"line_item_usage_start_date,line_item_usage_type,line_item_unblended_cost,line_item_line_item_type,line_item_product_code,"
        b"line_item_usage_amount,pricing_unit\n2026-10-01T00:00:00Z,USE1-NovaPro-input-tokens,1,Usage,AmazonBedrock,1,Gallons\n",
        "'Gallons' is no unit of tokens",
    ),
    "a month in a row": (
        b"BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName\n"
        b"1,USD,Usage,2026-10-01T00:00:00Z,2026-11-01T00:00:00Z,Amazon Bedrock\n",
        "charge period is longer than a day",
    ),
    "only other services": (
        b"line_item_usage_start_date,line_item_usage_type,line_item_unblended_cost,line_item_line_item_type,line_item_product_code\n"
        b"2026-10-01T00:00:00Z,BoxUsage,1,Usage,AmazonEC2\n",
        "has no line about models",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read(case: str) -> None:
    raw, said = CASES[case]
    with pytest.raises(BadInvoice) as error:
        read(raw, "f", {})
    assert said in str(error.value)
    assert error.value.hint


def page(**result: object) -> bytes:
    bucket = {"object": "bucket", "start_time": 1790812800, "end_time": 1790899200, "results": [result]}
    return json.dumps({"object": "page", "data": [bucket]}).encode()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (page(object="organization.usage.images.result", images=3), "/v1/organization/usage/images"),
        (json.dumps({"id": "x", "object": "chat.completion", "usage": {}}).encode(), "the answer to a model call"),
        (json.dumps({"error": {"message": "no"}}).encode(), "an error that the API answered"),
        (json.dumps({"object": "list", "data": [{"id": "gpt-5"}]}).encode(), "a list of another endpoint"),
        (page(object="organization.costs.result", amount={"value": 1, "currency": "usd"}, line_item=None), "group_by=line_item"),
        (page(object="organization.usage.completions.result", input_tokens=1, output_tokens=1, model=None), "group_by=model"),
    ],
)
def test_another_endpoint_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(BadInvoice) as error:
        read(raw, "f.json", {})
    assert said in error.value.hint


def test_a_bucket_of_two_days_is_refused() -> None:
    raw = (FILES / "openai_costs.json").read_bytes().replace(b"1790899200", b"1790899201")
    with pytest.raises(BadInvoice, match=r"f.json: data\[0\]: isn't of one UTC day"):
        read(raw, "f.json", {})


def test_a_report_that_goes_on_is_said() -> None:
    raw = (FILES / "openai_costs.json").read_bytes().replace(b'"has_more": false', b'"has_more": true')
    assert "goes on after its last page" in read(raw, "f.json", {}).notes[0]
    assert isinstance(read(raw, "f.json", {}), Invoice)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "currency", "results", "data"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["openai_usage", "openai_costs", "anthropic_usage", "anthropic_costs"]), st.data())
def test_damaged_pages_are_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    whole = json.loads((FILES / f"{name}.json").read_text())
    holder = data.draw(st.sampled_from([whole, whole["data"][0], whole["data"][0]["results"][0]]))
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(ANYTHING)
    with contextlib.suppress(BadInvoice):
        combined([read(json.dumps(whole).encode(), "f", {})])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["cur2.csv", "cur_legacy.csv", "focus.csv", "plain.csv"]), st.data())
def test_damaged_tables_are_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    raw = (FILES / name).read_bytes()
    start = data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(BadInvoice):
        combined([read(raw[:start] + data.draw(st.binary(max_size=6)) + raw[start + data.draw(st.integers(0, 5)) :], "f", {})])
