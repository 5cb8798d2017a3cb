"""What-if price books on the ledger in the engine: what is supposed, against genai-prices' own calculation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import count
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from genai_prices import Usage, calc_price
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tallystick.attribution.moments import nanoseconds
from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import Discount, UserPrices
from tallystick.attribution.spend import Ask
from tallystick.attribution.what_if import Answer, BadVariant, Question, Replacement, Variant, suppose, what_if
from tallystick.ingest.store import Store
from tallystick.schema.models import Seen

START = datetime(2031, 3, 1, tzinfo=UTC)
WHOLE = Question(nanoseconds(START), nanoseconds(START + timedelta(days=31)))
AS_IS = Variant(UserPrices())
TENANTS = count()


@dataclass(frozen=True)
class Call:
    provider: str = "openai"
    model: str = "gpt-4o-mini"
    tokens: tuple[int | None, int | None, int | None] = (1000, None, 100)
    """Input, cache read, output."""
    at: datetime = START
    tier: str = ""
    entry: str = "call"
    calls: int = 1
    feature: str = "chat"
    cost: Decimal | None = None


@dataclass(frozen=True)
class Tenant:
    name: str
    client: Client
    ask: Ask

    def enter(self, *calls: Call) -> None:
        self.client.insert(
            "ledger",
            [
                (
                    *(one.entry, one.calls, self.name, one.feature, one.provider, one.model, one.tier, one.at),
                    *(None if n is None else n * (one.calls or 1) for n in one.tokens),
                    *(one.cost, b"%016d" % at, b"%08d" % at),
                )
                for at, one in enumerate(calls)
            ],
            column_names=[
                *("entry", "calls", "tenant", "feature", "provider", "response_model", "service_tier", "started_at"),
                *("input_tokens", "cache_read_tokens", "output_tokens", "cost_usd", "trace_id", "span_id"),
            ],
        )

    def total(self, variant: Variant = AS_IS, **question: Any) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
        (row,) = self.answer(variant, dimensions=(), **question).rows
        return row["cost_usd"], row["as_if_usd"], row["difference_usd"]

    def answer(self, variant: Variant = AS_IS, **question: Any) -> Answer:
        return what_if(self.ask, variant, Question(WHOLE.since_ns, WHOLE.until_ns, **question))


@pytest.fixture
def tenant(chdb_store: Store) -> Tenant:
    """One whose rows are asked for as it asks: through its cage."""
    name = f"what-if-{next(TENANTS)}"

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with chdb_store.reader(name, {"max_execution_time": 30}) as reader:
            return list(reader.query(sql, parameters=dict(params)).named_results())

    return Tenant(name, chdb_store.client(), ask)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(chdb_store: Store) -> Iterator[None]:
    """Others ask for everybody's rows."""
    yield
    for month in (203103, 203104):
        chdb_store.client().command(f"ALTER TABLE ledger DROP PARTITION {month}")


def priced(one: Call, *, model: str | None = None, factor: Decimal = Decimal(1)) -> Decimal | None:
    """genai-prices' own answer for the call of an OpenAI or Anthropic model, times a factor, rounded to the ledger's 12 decimals."""
    given, read, out = one.tokens
    if given is None and out is None:
        return None
    usage = Usage(input_tokens=(given or 0) + (read or 0), cache_read_tokens=read or 0, output_tokens=out or 0)
    name = model or one.model
    found = calc_price(
        usage, name, provider_id="anthropic" if name.startswith("claude") else "openai", genai_request_timestamp=one.at
    )
    return (found.total_price * factor).quantize(Decimal("1e-12"), ROUND_HALF_UP)


def summed(costs: Sequence[Decimal | None]) -> Decimal | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) if known else None


def test_nothing_supposed_makes_no_difference(tenant: Tenant) -> None:
    calls = [
        Call(tokens=(n * 7, n, n * 3), provider=provider, model=model, at=START + timedelta(hours=n))
        for n in range(1, 60)
        for provider, model in (("openai", "gpt-4o-mini"), ("openai", "gpt-5"), ("anthropic", "claude-opus-4-5"))
    ]
    tenant.enter(*(Call(**{**vars(one), "cost": priced(one)}) for one in calls))
    assert tenant.total() == (summed([priced(one) for one in calls]), summed([priced(one) for one in calls]), Decimal(0))


def test_a_voided_call_costs_nothing_on_either_side(tenant: Tenant) -> None:
    kept, twice = Call(cost=Decimal("0.00021")), Call(tokens=(500, 400, 9), cost=Decimal("0.0001104"))
    void = Call(tokens=(500, 400, 9), cost=Decimal("-0.0001104"), entry="void", calls=-1)
    tenant.enter(kept, twice, void)
    (row,) = tenant.answer(Variant(UserPrices(), (Replacement("gpt-4o-mini", "gpt-4o"),))).rows
    assert (row["cost_usd"], row["as_if_usd"]) == (Decimal("0.00021"), priced(kept, model="gpt-4o"))
    assert (row["calls"], row["tokens"], row["priced_calls"], row["as_if_priced_calls"]) == (1, 1100, 1, 1)


def test_corrected_prices_belong_to_what_it_cost_and_allocations_to_both(tenant: Tenant) -> None:
    call = Call(cost=Decimal("0.00020"))
    none = (None, None, None)
    tenant.enter(
        call,
        Call(entry="reprice", calls=0, tokens=none, cost=Decimal("0.00001")),
        Call(entry="allocation", calls=0, tokens=none, model="", provider="", cost=Decimal("5")),
        Call(entry="trueup", calls=0, tokens=none, model="gpt-4o-mini", cost=Decimal("-1")),
    )
    assert tenant.total() == (Decimal("4.00021"), Decimal("4.00021"), Decimal(0))


def test_another_model_at_the_same_provider_or_by_itself(tenant: Tenant) -> None:
    tenant.enter(
        Call(),
        Call(provider="azure", model="gpt-4o"),
        Call(provider="vllm", model="my-llama"),
        Call(provider="groq", model="x-1"),
    )
    to = Variant(
        UserPrices(),
        (Replacement("gpt-4o*", "gpt-5-mini"), Replacement("vllm/*", "anthropic/claude-haiku-4-5"), Replacement("x-*", "gpt-5")),
    )
    rows = {row["provider"]: row for row in tenant.answer(to, dimensions=("provider",)).rows}
    assert rows["openai"]["as_if_usd"] == priced(Call(), model="gpt-5-mini")
    assert rows["azure"]["as_if_usd"] == priced(Call(), model="gpt-5-mini")
    assert rows["vllm"]["as_if_usd"] == priced(Call(), model="claude-haiku-4-5")
    assert rows["groq"]["as_if_usd"] == priced(Call(), model="gpt-5")


def test_one_side_may_know_more(tenant: Tenant) -> None:
    """Unpriced is never nothing: a difference to nothing is none."""
    tenant.enter(Call(model="in-house"), Call(cost=Decimal("0.00021")), Call(tokens=(None, None, None)))
    rows = {row["model"]: row for row in tenant.answer(Variant(UserPrices(), (Replacement("in-house", "gpt-4o"),))).rows}
    own = rows["in-house"]
    assert (own["cost_usd"], own["difference_usd"]) == (None, None)
    assert (own["priced_calls"], own["as_if_priced_calls"], own["priced_tokens"], own["as_if_priced_tokens"]) == (0, 1, 0, 1100)
    assert (own["all_calls"], own["all_priced_calls"], own["all_as_if_priced_calls"]) == (3, 1, 2)
    assert own["all_difference_usd"] == priced(Call(), model="gpt-4o")


def test_filters_and_groups_are_of_the_calls_as_they_are(tenant: Tenant) -> None:
    tenant.enter(Call(feature="a'\\\tb"), Call(feature="report"), Call(at=START + timedelta(days=31)))
    batch = Variant(UserPrices(), tier="batch")
    (row,) = tenant.answer(batch, dimensions=("feature", "service_tier"), where={"feature": "a'\\\tb"}).rows
    assert (row["feature"], row["service_tier"], row["calls"], row["as_if_usd"]) == ("a'\\\tb", "", 1, Decimal("0.000105"))
    assert [row["day"] for row in tenant.answer(batch, dimensions=("day",)).rows] == [START.date()]
    assert len(tenant.answer(batch, dimensions=("feature",), limit=1).rows) == 1


def test_a_tenant_is_asked_of_alone(tenant: Tenant) -> None:
    other = Tenant("somebody-else", tenant.client, tenant.ask)
    other.enter(Call(cost=Decimal(1)))
    tenant.enter(Call(cost=Decimal("0.00021")))
    assert tenant.total() == (Decimal("0.00021"), Decimal("0.00021"), Decimal(0))


def test_a_period_without_calls(tenant: Tenant) -> None:
    assert tenant.answer(Variant(UserPrices(), (Replacement("gpt-4o", "gpt-5"),))).rows == []


def test_prices_of_a_file_and_discounts_multiply(tenant: Tenant) -> None:
    file = UserPrices.model_validate({"discounts": [{"percent": 10}], "markups": [{"percent": 20}]})
    tenant.enter(Call())
    variant = Variant(file, discounts=(Discount(percent=Decimal(50), provider="openai"),))
    assert tenant.total(variant)[1] == Decimal("0.00021") * Decimal("0.9") * Decimal("0.5") * Decimal("1.2")


def test_for_others_a_replacing_model_has_its_public_price() -> None:
    file = UserPrices.model_validate({"discounts": [{"percent": 90}]})
    seen = [Seen("openai", "", "gpt-4o", ""), Seen("openai", "", "gpt-5", "")]
    supposed = suppose(Variant(file, (Replacement("gpt-4o", "gpt-4o-mini"),), public=True), seen)
    inputs = {row.response_model: row.rates[0].normalize() for row in supposed.rows}
    assert inputs == {"gpt-4o": Decimal("0.00000015"), "gpt-5": Decimal("0.000000125")}
    assert "replacing models are priced by the public list" in supposed.notes


def test_what_has_no_price_at_a_tier_is_told() -> None:
    seen = [Seen("x-ai", "", "grok-4", ""), Seen("openai", "", "gpt-5", "")]
    supposed = suppose(Variant(UserPrices(), tier="batch"), seen)
    assert [note for note in supposed.notes if "x-ai/grok-4" in note and "gpt-5" not in note]
    assert suppose(Variant(UserPrices(), tier="standard"), [Seen("openai", "", "gpt-5", "batch")]).notes == ()


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        (Variant(UserPrices(), (Replacement("gpt-4-mini", "gpt-5"),)), ("gpt-4-mini", "gpt-4o-mini")),
        (Variant(UserPrices(), (Replacement("gpt-4o-mini", "gpt-5-minni"),)), ("gpt-5-minni", "gpt-5-mini")),
        (Variant(UserPrices(), discounts=(Discount(percent=Decimal(5), provider="opnai"),)), ("opnai", "openai")),
    ],
)
def test_what_fits_nothing_is_refused(variant: Variant, told: tuple[str, str]) -> None:
    with pytest.raises(BadVariant) as caught:
        suppose(variant, [Seen("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "")])
    assert told[0] in caught.value.message
    assert caught.value.hint == f"did you mean {told[1]}?"


COUNTS = st.one_of(st.none(), st.integers(0, 20), st.integers(0, 200_000))
MODELS = ["gpt-4o-mini", "gpt-4o", "gpt-5", "gpt-5-mini", "claude-opus-4-5", "claude-haiku-4-5"]
CALLS = st.builds(
    Call,
    model=st.sampled_from(MODELS[:4]),
    tokens=st.tuples(COUNTS, COUNTS, COUNTS),
    at=st.integers(0, 31 * 86_400 - 1).map(lambda s: START + timedelta(seconds=s)),
)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    calls=st.lists(CALLS, min_size=1, max_size=30),
    voided=st.integers(0, 30),
    new=st.one_of(st.none(), st.sampled_from(MODELS)),
    percent=st.one_of(st.none(), st.integers(0, 100)),
)
def test_any_supposition_costs_what_genai_prices_says(
    chdb_store: Store, calls: list[Call], voided: int, new: str | None, percent: int | None
) -> None:
    name = f"any-{next(TENANTS)}"

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with chdb_store.reader(name, {"max_execution_time": 30}) as reader:
            return list(reader.query(sql, parameters=dict(params)).named_results())

    tenant = Tenant(name, chdb_store.client(), ask)
    voids = [Call(**{**vars(one), "entry": "void", "calls": -1}) for one in calls[:voided]]
    tenant.enter(*calls, *voids)
    variant = Variant(
        UserPrices(),
        (Replacement("gpt-*", new),) if new else (),
        discounts=(Discount(percent=Decimal(percent)),) if percent is not None else (),
    )
    factor = 1 - Decimal(percent or 0) / 100
    right = [priced(one, model=new, factor=factor) for one in calls]
    undone = [None if cost is None else -cost for cost in right[:voided]]
    (row,) = [*tenant.answer(variant, dimensions=()).rows] or [{"as_if_usd": None, "difference_usd": None}]
    expected = summed([*right, *undone])
    assert row["as_if_usd"] == expected or (row["as_if_usd"] is None and expected == 0)
    assert row["difference_usd"] is None


def test_rows_stand_under_the_names_of_the_calls() -> None:
    seen = Seen("azure", "my-gpt", "gpt-4o-2024-08-06", "flex")
    supposed = suppose(Variant(UserPrices(), (Replacement("my-gpt", "openai/gpt-5"),)), [seen])
    assert {Seen(*row[1:5]) for row in supposed.rows} == {seen}
    assert {row.price_ids for row in supposed.rows} == {
        row.price_ids for row in PriceBook().rows([Seen("openai", "gpt-5", "", "flex")])
    }
