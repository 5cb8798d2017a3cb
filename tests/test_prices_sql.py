"""What SQL charges, against genai-prices itself for every model, and against the user's prices worked out by hand."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from clickhouse_connect.driver.client import Client
from genai_prices import calc_price
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices, TimeOfDateConstraint, Usage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallystick.schema
from tallystick.attribution.prices import PriceBook, PriceRow
from tallystick.attribution.prices_file import load_prices
from tallystick.schema.models import Seen

SCHEMA = Path(tallystick.schema.__file__).parent
ALWAYS = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIERS = ("", "flex", "priority", "batch", "fast")
METERED = {key for key in (u["price_key"] for u in unit_data.values()) if key.endswith("_mtok")} | {"requests_kcount"}
NOT_COUNTED_ON_SPANS = {"cache_audio_read_mtok", "cache_image_read_mtok", "output_image_mtok", "output_citation_mtok"} | {
    "input_video_mtok",
    "output_video_mtok",
}
# Published by the providers; docs/prices.md cites where. (provider, tier) → beginning of the model's name, factor
PUBLISHED = {("openai", "batch"): "", ("anthropic", "batch"): "", ("google", "batch"): "gemini-", ("google", "flex"): "gemini-"}


class Tokens(NamedTuple):
    """The buckets of the staging table."""

    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None


class Call(NamedTuple):
    seen: Seen
    started_at: datetime
    tokens: Tokens
    usage_source: str = "provider"


Price = Callable[..., list[tuple[str, Decimal | None]]]


@pytest.fixture(scope="session")
def price(chdb_client: Client) -> Price:
    """(book, calls) → price id and cost of each call, by the product's SQL in ClickHouse."""
    for statement in (SCHEMA / "migrations" / "0002_prices.sql").read_text().split(";\n"):
        chdb_client.command(statement)
    tokens = ", ".join(f"{name} Nullable(UInt32)" for name in Tokens._fields)
    chdb_client.command(
        "CREATE TABLE price_test_staging (at UInt32, provider LowCardinality(String), request_model LowCardinality(String), "
        "response_model LowCardinality(String), service_tier LowCardinality(String), started_at DateTime64(9, 'UTC'), "
        f"{tokens}, usage_source LowCardinality(String)) ENGINE = Memory"
    )
    known: set[tuple[str, Seen]] = set()

    def run(book: PriceBook, calls: Iterable[Call]) -> list[tuple[str, Decimal | None]]:
        calls = list(calls)
        fresh = {call.seen for call in calls} - {seen for id_, seen in known if id_ == book.id}
        known.update((book.id, seen) for seen in fresh)
        if rows := book.rows(fresh):
            chdb_client.insert("prices", rows, column_names=PriceRow._fields)
        chdb_client.command("TRUNCATE TABLE price_test_staging")
        names = ["at", *Seen._fields, "started_at", *Tokens._fields, "usage_source"]
        chdb_client.insert(
            "price_test_staging",
            [(at, *call.seen, call.started_at, *call.tokens, call.usage_source) for at, call in enumerate(calls)],
            column_names=names,
        )
        cost, join = ((SCHEMA / "sql" / name).read_text() for name in ("cost.sql", "cost_join.sql"))
        query = f"SELECT {cost} FROM price_test_staging AS s {join} ORDER BY s.at"
        found = chdb_client.query(query, parameters={"book": book.id})
        assert [t.name for t in found.column_types] == ["String", "Nullable(Decimal(18, 12))"]
        return [(price_id, cost) for price_id, cost in found.result_rows]

    return run


BOOK = PriceBook()
BUCKETS_OF_GENAI = [key for key, unit in unit_data.items() if unit["dimensions"]["family"] == "tokens"]


@cache
def genai_usage(t: Tokens) -> Usage:
    """Disjoint buckets as genai-prices counts: wholes that contain their parts. Every token unit is said to be known."""
    n = {name: value or 0 for name, value in t._asdict().items()}
    writes = n["cache_write_5m_tokens"] + n["cache_write_1h_tokens"]
    counts = dict.fromkeys(BUCKETS_OF_GENAI, 0) | {
        "input_tokens": n["input_tokens"] + n["cache_read_tokens"] + writes,
        "cache_read_tokens": n["cache_read_tokens"],
        "cache_write_tokens": writes,
        "cache_write_5m_tokens": n["cache_write_5m_tokens"],
        "cache_write_1h_tokens": n["cache_write_1h_tokens"],
        "output_tokens": n["output_tokens"],
        "output_reasoning_tokens": n["reasoning_tokens"],
        "input_audio_tokens": n["audio_input_tokens"],
        "output_audio_tokens": n["audio_output_tokens"],
        "input_image_tokens": n["image_input_tokens"],
    }
    return Usage(**counts)


def price_parts(model: ModelInfo) -> list[ModelPrice]:
    base = [model.prices] if isinstance(model.prices, ModelPrice) else [conditional.prices for conditional in model.prices]
    return base + [variant.prices for variant in model.price_variants or []]


def is_priced(model: ModelInfo) -> bool:
    stated = {key for part in price_parts(model) for key, value in vars(part).items() if value is not None}
    return bool(stated & (METERED - NOT_COUNTED_ON_SPANS)) or model.id.endswith(":free")


def expected(provider: Provider, model: ModelInfo, call: Call) -> Decimal | None:
    """genai-prices' own answer, rounded to the ledger's 12 decimals."""
    tier = call.seen.service_tier
    if not is_priced(model):
        return None
    context = {"service_tier": tier, "processing": tier, "speed": tier}
    known = any(all(context.get(key) == value for key, value in v.when.items()) for v in model.price_variants or [])
    total = model.calc_price(
        genai_usage(call.tokens), provider, genai_request_timestamp=call.started_at, price_context=context if known else None
    ).total_price
    beginning = PUBLISHED.get((provider.id, tier))
    if not known and beginning is not None and model.id.startswith(beginning):
        total *= Decimal("0.5")
    return total.quantize(Decimal("1e-12"))


def usages(model: ModelInfo) -> list[Tokens]:
    thresholds = {
        tier.start
        for part in price_parts(model)
        for value in vars(part).values()
        if isinstance(value, TieredPrices)
        for tier in value.tiers
    }
    at_thresholds = [
        tokens
        for total in sorted({t + d for t in thresholds for d in (-1, 0, 1)})
        for tokens in (
            Tokens(input_tokens=total, output_tokens=7),
            Tokens(total - 30, 10, 9, 11, 1000, 100, 5, None, 3),
            Tokens(cache_read_tokens=total, output_tokens=1),
        )
    ]
    return [
        *at_thresholds,
        Tokens(0, output_tokens=0),
        Tokens(1, output_tokens=1),
        Tokens(None, output_tokens=3),
        Tokens(17, None, None, None, None),
        Tokens(1234, 567, None, None, 89),
        Tokens(100, 2000, 300, None, 40),
        Tokens(100, 0, 300, 4000, 40),
        Tokens(10, 7, 0, 31, 900, 300),
        Tokens(1000, 10, 0, 0, 500, 0, 800, 400, 0),
        Tokens(1000, 10, 0, 0, 500, 100, 300, 400, 700),
        Tokens(999_999, 1, 1, 1, 128_000, 128_000),
    ]


def moments(model: ModelInfo) -> list[datetime]:
    """Just before, at and after everything that can change a price."""
    conditions = model.prices if isinstance(model.prices, list) else []
    constraints = [c.constraint for c in conditions] + [v.constraint for v in model.price_variants or []]
    dates = {datetime.combine(c.start_date, time(), UTC) for c in constraints if isinstance(c, StartDateConstraint)}
    times = [t for c in constraints if isinstance(c, TimeOfDateConstraint) for t in (c.start_time, c.end_time)]
    daily = {datetime.combine(day, t) for day in (ALWAYS, *dates) for t in times}
    edges = {edge + timedelta(microseconds=d) for edge in dates | daily for d in (-1, 0)}
    return sorted(
        edges | {ALWAYS, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)} | ({datetime(2099, 12, 31, tzinfo=UTC)} if dates else set())
    )


def test_every_model_of_genai_prices_at_every_date_and_tier(price: Price) -> None:
    cases = [
        (provider, model, Call(Seen(provider.id, model.id, "", tier), moment, tokens))
        for provider in providers
        for model in provider.models
        for tier in (TIERS if model.price_variants else ("",))
        for moment in (moments(model) if tier == "" or model.price_variants else [ALWAYS])
        for tokens in usages(model)
    ]
    assert len({(provider.id, model.id) for provider, model, _ in cases}) == sum(len({m.id for m in p.models}) for p in providers)
    found = price(BOOK, [call for _, _, call in cases])
    wrong = [
        (call, price_id, cost, right)
        for (provider, model, call), (price_id, cost) in zip(cases, found, strict=True)
        if cost != (right := expected(provider, model, call)) or (price_id == "") != (right is None)
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)} differ, the first: {wrong[0]}"


def test_no_token_price_of_genai_prices_is_overlooked() -> None:
    """A new kind of token price in an update of genai-prices must be looked at, not silently charged as its whole."""
    used = {key for p in providers for m in p.models for part in price_parts(m) for key in vars(part)} & METERED
    assert used - NOT_COUNTED_ON_SPANS == {
        *("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok", "input_audio_mtok", "input_image_mtok"),
        *("output_mtok", "output_reasoning_mtok", "output_audio_mtok", "requests_kcount"),
    }


counts = st.one_of(st.none(), st.integers(0, 10), st.integers(0, 400_000), st.integers(0, 2**32 - 1))


@st.composite
def calls(draw: st.DrawFn) -> tuple[Provider, ModelInfo, Call]:
    provider = draw(st.sampled_from(providers))
    model = draw(st.sampled_from(provider.models))
    whole_in, whole_out = draw(counts), draw(counts)
    audio_in = draw(st.integers(0, whole_in or 0))
    reasoning = draw(st.integers(0, whole_out or 0))
    tokens = Tokens(
        *(whole_in, draw(counts), draw(counts), draw(counts), whole_out, reasoning, audio_in),
        draw(st.integers(0, (whole_out or 0) - reasoning)),
        draw(st.integers(0, (whole_in or 0) - audio_in)),
    )
    moment = draw(
        st.integers(1, 4_000_000_000_000_000).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us))
    )
    tier = draw(st.sampled_from(TIERS))
    return provider, model, Call(Seen(provider.id, model.id, "", tier), moment, tokens)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cases=st.lists(calls(), min_size=1, max_size=40))
def test_any_usage_at_any_time(price: Price, cases: list[tuple[Provider, ModelInfo, Call]]) -> None:
    for (provider, model, call), (price_id, cost) in zip(cases, price(BOOK, [call for _, _, call in cases]), strict=True):
        right = expected(provider, model, call)
        unknown = call.tokens.input_tokens is None and call.tokens.output_tokens is None
        assert (price_id == "") == (right is None)
        assert cost == (None if unknown or right is None or right >= 1_000_000 else right), call


# What the user states. Expected costs are worked out by hand.


def user_book(**prices: object) -> PriceBook:
    return PriceBook(load_prices({"prices": prices}))


def own(model: str, moment: datetime = ALWAYS, tier: str = "", provider: str = "vllm", **tokens: int) -> Call:
    return Call(Seen(provider, model, "", tier), moment, Tokens(**tokens))


def cost_of(price: Price, book: PriceBook, call: Call) -> Decimal | None:
    return price(book, [call])[0][1]


ACME = {"provider": "vllm", "model": "acme-7b", "per_million_tokens": {"input": 2, "output": 10}}


def test_usage_decides_between_a_cost_zero_and_null(price: Price) -> None:
    book = user_book(models=[ACME])
    seen = Seen("vllm", "acme-7b", "", "")
    known, none, refused, unpriced, only_cache = price(
        book,
        [
            Call(seen, ALWAYS, Tokens(1_000_000, output_tokens=None)),
            Call(seen, ALWAYS, Tokens()),
            Call(seen, ALWAYS, Tokens(), "none"),
            Call(Seen("vllm", "other", "", ""), ALWAYS, Tokens(5, output_tokens=5)),
            Call(seen, ALWAYS, Tokens(cache_read_tokens=5)),
        ],
    )
    assert known[1] == 2
    assert none[0] != ""
    assert none[1] is None
    assert refused[1] == 0
    assert unpriced == ("", None)
    assert only_cache[1] is None


def test_parts_larger_than_their_whole_are_cut_to_it(price: Price) -> None:
    rates = {"input": 1, "audio_input": 100, "image_input": 10, "output": 2, "reasoning": 3, "audio_output": 50}
    book = user_book(models=[ACME | {"per_million_tokens": rates}])
    for tokens, millionths in [
        (Tokens(10, output_tokens=0, audio_input_tokens=25), 1000),
        (Tokens(10, output_tokens=0, audio_input_tokens=4, image_input_tokens=25), 4 * 100 + 6 * 10),
        (Tokens(10, output_tokens=0, image_input_tokens=25), 100),
        (Tokens(0, output_tokens=10, reasoning_tokens=99, audio_output_tokens=99), 30),
        (Tokens(0, output_tokens=10, reasoning_tokens=3, audio_output_tokens=99), 3 * 3 + 7 * 50),
    ]:
        call = Call(Seen("vllm", "acme-7b", "", ""), ALWAYS, tokens)
        assert cost_of(price, book, call) == Decimal(millionths) / 1_000_000, tokens


def test_currency_and_markup_multiply_exactly(price: Price) -> None:
    entry = {"provider": "vllm", "model": "acme-7b", "currency": "EUR", "per_million_tokens": {"input": "0.35", "output": "1.10"}}
    book = user_book(exchange_rates={"EUR": "1.0842"}, models=[entry | {"markup_percent": 12}], markups=[{"percent": "2.5"}])
    right = (
        (Decimal("0.35") * 1_234_567 + Decimal("1.10") * 89) / 1_000_000 * Decimal("1.0842") * Decimal("1.12") * Decimal("1.025")
    )
    [(price_id, cost)] = price(book, [own("acme-7b", input_tokens=1_234_567, output_tokens=89)])
    assert cost == right.quantize(Decimal("1e-12"))
    stated = book.find(price_id)
    assert stated is not None
    assert stated.note == "EUR at 1.0842 USD; markup 12 %; markup 2.5 %"
    dated = user_book(exchange_rates={"EUR": "1.0842"}, models=[entry | {"exchange_rate": "1.2"}])
    assert cost_of(price, dated, own("acme-7b", input_tokens=1_000_000)) == Decimal("0.42")


def test_negotiated_price_wins_only_while_it_is_valid(price: Price) -> None:
    entry = {"provider": "openai", "model": "gpt-5", "per_million_tokens": {"input": 1, "output": 8}}
    book = user_book(models=[entry | {"from": "2026-03-01", "until": "2026-06-01T12:00:00Z"}])
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 6, 1, 12, tzinfo=UTC)
    moments = [start - timedelta(microseconds=1), start, end - timedelta(microseconds=1), end]
    found = price(book, [own("gpt-5-2025-08-07", m, provider="openai", input_tokens=1_000_000) for m in moments])
    assert [cost for _, cost in found] == [Decimal("1.25"), 1, 1, Decimal("1.25")]
    assert [price_id.split("@")[0] for price_id, _ in found] == ["genai-prices", "file", "file", "genai-prices"]
    assert found[1][0].endswith(",openai,gpt-5,from=2026-03-01")


def test_own_model_has_no_price_outside_its_dates_and_the_last_entry_wins(price: Price) -> None:
    book = user_book(
        models=[
            ACME | {"from": "2026-01-01", "until": "2026-03-01"},
            ACME | {"from": "2026-02-01", "until": "2026-03-01", "per_million_tokens": {"input": 3}},
            ACME | {"from": "2026-04-01", "per_million_tokens": {"input": 4}},
        ]
    )
    days = [(2025, 12, 31), (2026, 1, 1), (2026, 2, 1), (2026, 3, 1), (2026, 3, 31), (2026, 4, 1)]
    found = price(book, [own("acme-7b", datetime(*day, tzinfo=UTC), input_tokens=1_000_000) for day in days])
    assert [cost for _, cost in found] == [None, 2, 3, None, None, 4]
    assert [price_id == "" for price_id, _ in found] == [True, False, False, True, True, False]


def test_tiers_of_input_size_count_the_cache_and_keep_what_they_do_not_state(price: Price) -> None:
    above = [
        {"input_tokens": 100, "per_million_tokens": {"input": 4}},
        {"input_tokens": 200, "per_million_tokens": {"output": 30}},
    ]
    book = user_book(models=[ACME | {"above": above}])
    for cached, (input_rate, output_rate) in {0: (2, 10), 90: (2, 10), 91: (4, 10), 190: (4, 10), 191: (4, 30)}.items():
        call = own("acme-7b", input_tokens=10, cache_read_tokens=cached, output_tokens=1000)
        right = Decimal((10 + cached) * input_rate + 1000 * output_rate) / 1_000_000
        assert cost_of(price, book, call) == right, cached


def test_service_tiers_own_price_then_factor_then_base(price: Price) -> None:
    book = user_book(
        models=[ACME, ACME | {"service_tier": "Batch", "per_million_tokens": {"input": 1}}],
        service_tiers=[{"provider": "vllm", "service_tier": "flex", "factor": "0.6"}],
    )
    found = price(book, [own("acme-7b", tier=tier, input_tokens=1_000_000) for tier in ("standard", "batch", "FLEX", "scale")])
    assert [cost for _, cost in found] == [2, 1, Decimal("1.2"), 2]
    assert [",".join(price_id.split(",")[4:]) for price_id, _ in found] == [
        "",
        "service_tier=batch",
        "service_tier=flex,at=0.6",
        "service_tier=scale,at=base",
    ]


def test_discounts_are_for_list_prices_and_markups_for_all(price: Price) -> None:
    book = user_book(
        models=[ACME],
        discounts=[{"percent": 20}, {"provider": "openai", "model": "gpt-5*", "percent": 10, "source": "order form 7"}],
        markups=[{"provider": "openai", "percent": 3}],
    )
    calls = [
        own("acme-7b", input_tokens=1_000_000),
        own("gpt-5", provider="openai", input_tokens=1_000_000),
        own("gpt-4o", provider="openai", input_tokens=1_000_000),
        own("claude-haiku-4-5", provider="anthropic", input_tokens=1_000_000),
    ]
    found = price(book, calls)
    assert [cost for _, cost in found] == [
        2,
        Decimal("1.25") * Decimal("0.72") * Decimal("1.03"),
        Decimal("2.06"),
        Decimal("0.8"),
    ]
    assert found[1][0].startswith("genai-prices@")
    assert "+file@" in found[1][0].split(",")[0]


def test_discounts_markups_and_factors_hold_between_their_dates(price: Price) -> None:
    dates = {"from": "2026-03-01", "until": "2026-04-01"}
    rules: list[tuple[str, dict[str, object], str, Decimal]] = [
        ("discounts", {"percent": 10}, "", Decimal("1.125")),
        ("markups", {"percent": 10}, "", Decimal("1.375")),
        ("service_tiers", {"service_tier": "scale", "factor": 3}, "scale", Decimal("3.75")),
    ]
    for kind, rule, tier, inside in rules:
        book = user_book(**{kind: [rule | dates]})
        days = [datetime(2026, *day, tzinfo=UTC) for day in [(2, 28), (3, 1), (3, 31), (4, 1)]]
        found = price(book, [own("gpt-5", day, tier, "openai", input_tokens=1_000_000) for day in days])
        assert [cost for _, cost in found] == [Decimal("1.25"), inside, inside, Decimal("1.25")], kind


def test_a_model_offered_by_another_provider_has_that_lists_base_price_only(price: Price) -> None:
    tokens = Tokens(1000, 200, output_tokens=300)
    for model in ("gpt-5", "claude-sonnet-4-5"):
        for tier in ("", "flex", "batch", "priority"):
            context = {"service_tier": tier, "processing": tier}
            right = calc_price(
                genai_usage(tokens), model, provider_id="azure", genai_request_timestamp=ALWAYS, price_context=context
            ).total_price
            [(price_id, cost)] = price(BOOK, [Call(Seen("azure", model, "", tier), ALWAYS, tokens)])
            assert cost == right
            assert price_id.endswith(f",service_tier={tier},at=base" if tier else ",from=always")
            assert f",azure,{model},as=" in price_id


def test_price_per_request_and_a_free_model(price: Price) -> None:
    book = user_book(models=[ACME | {"per_request": "0.005"}, {"model": "gift-*", "per_request": 0}])
    assert cost_of(price, book, own("acme-7b", input_tokens=1_000_000)) == Decimal("2.005")
    assert cost_of(price, book, own("gift-1", provider="", input_tokens=1_000_000)) == 0


def test_rows_of_another_book_are_not_used_but_explain_their_price_ids(price: Price, chdb_client: Client) -> None:
    old, new = user_book(models=[ACME]), user_book(models=[ACME | {"per_million_tokens": {"input": 7}}])
    call = own("acme-7b", input_tokens=1_000_000)
    [(old_id, old_cost)], [(new_id, new_cost)] = price(old, [call]), price(new, [call])
    assert [old_cost, new_cost] == [2, 7]
    assert old.id != new.id
    assert old_id != new_id
    [row] = explained(chdb_client, old_id)
    assert row["book"] == old.id
    assert row["input_usd_per_million"] == 2
    assert new.find(old_id) is None


def explained(client: Client, price_id: str) -> list[dict[str, object]]:
    query = (SCHEMA / "sql" / "price_by_id.sql").read_text()
    return list(client.query(query, parameters={"price_id": price_id}).named_results())


def test_a_price_id_in_the_ledger_reads_as_the_book_states_it(price: Price, chdb_client: Client) -> None:
    at = datetime(2026, 11, 1, 2, tzinfo=UTC)
    tokens = Tokens(500_000, output_tokens=1)
    seen = [
        ("openai", "gpt-6-sol"),
        ("deepseek", "deepseek-v4-pro"),
        ("perplexity", "sonar-pro"),
        ("openai", "gpt-4o-audio-preview"),
    ]
    for price_id, _ in price(BOOK, [Call(Seen(*names, "", ""), at, tokens) for names in seen]):
        stated = BOOK.find(price_id)
        assert stated is not None
        rates = stated.usd_per_million(price_id)
        [row] = explained(chdb_client, price_id)
        assert {bucket: row.get(f"{bucket}_usd_per_million", row["request_usd"]) for bucket in rates} == rates
        assert (row["price_id"], row["model"]) == (price_id, stated.price_key)
        assert str(row["valid_from"])[:19] == str(stated.valid_from)[:19]
        assert len(set(rates.values())) > 1
    assert explained(chdb_client, "nonsense") == []


def test_writing_rows_twice_changes_nothing(price: Price, chdb_client: Client) -> None:
    book = user_book(models=[ACME, ACME | {"from": "2026-02-01", "per_million_tokens": {"input": 3}}])
    call = own("acme-7b", input_tokens=1_000_000)
    before = price(book, [call, call])
    chdb_client.insert("prices", book.rows([call.seen, call.seen]), column_names=PriceRow._fields)
    assert price(book, [call, call]) == before
    assert before[0][1] == 3


def test_time_of_day_stands_in_the_price_id(price: Price) -> None:
    calls = [
        own("deepseek-chat", datetime(2026, 11, 1, *hm, tzinfo=UTC), provider="deepseek", input_tokens=1_000_000)
        for hm in [(0, 29), (0, 30), (16, 29), (16, 30)]
    ]
    found = price(BOOK, calls)
    assert [price_id.partition("utc=")[2] for price_id, _ in found] == ["00:00", "00:30", "00:30", "16:30"]
    assert found[0][1] == found[3][1] != found[1][1] == found[2][1]
    flat = user_book(models=[{"provider": "deepseek", "model": "deepseek-chat", "per_million_tokens": {"input": 1}}])
    assert {(price_id.rpartition(",")[2], cost) for price_id, cost in price(flat, calls)} == {("from=always", Decimal(1))}


def test_dearest_possible_prices_do_not_break_a_batch(price: Price) -> None:
    """One absurd call must not make the insert of its whole batch fail."""
    book = user_book(models=[ACME | {"per_million_tokens": dict.fromkeys(("input", "output", "cache_read"), 1_000_000)}])
    full = 2**32 - 1
    absurd = Call(Seen("vllm", "acme-7b", "", ""), ALWAYS, Tokens(*([full] * 9)))
    [(price_id, cost), (_, ordinary)] = price(book, [absurd, own("acme-7b", input_tokens=1)])
    assert price_id != ""
    assert cost is None
    assert ordinary == 1
