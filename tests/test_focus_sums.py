"""Whatever the ledger holds: the sum of BilledCost is the ledger's to the last decimal, of each customer and day."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import focus_ledger as data
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tallystick.attribution.focus.question import SETTINGS, Question, days, stream, tally
from tallystick.attribution.moments import nanoseconds

if TYPE_CHECKING:
    from tallystick.ingest.store import Store

TENANT = "focus-sums"
START = datetime(2026, 10, 1, tzinfo=UTC)
SINCE, UNTIL = nanoseconds(START), nanoseconds(START + timedelta(days=3))
NUMBERS = itertools.count()

tokens = st.dictionaries(
    st.sampled_from((
        "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens",
        "audio_input_tokens", "audio_output_tokens", "image_input_tokens",
    )),
    st.integers(0, 3_000_000),
)  # fmt: skip
calls = st.builds(
    data.Entry,
    at=st.integers(0, 3 * 86_400 - 1).map(lambda second: START + timedelta(seconds=second)),
    entry=st.just("call"),
    tokens=tokens,
    priced=st.booleans(),
    feature=st.sampled_from(("chat", "search")),
    tags=st.sampled_from(({}, {"plan": "pro"})),
)
others = st.builds(
    data.Entry,
    entry=st.sampled_from(("reprice", "trueup", "allocation")),
    calls=st.just(0),
    tokens=st.just({}),
    cost=st.decimals(-5, 5, places=12),
    entered_at=st.sampled_from((START, START + timedelta(days=40))),
    reason=st.sampled_from(("a", "b")),
)


@pytest.fixture(scope="module")
def ledger(chdb_store: "Store") -> "Iterator[Store]":
    data.enter_prices(chdb_store.client())
    yield chdb_store
    data.forget(chdb_store.client(), TENANT)


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(st.lists(calls, min_size=1, max_size=12), st.lists(others, max_size=4), st.data())
def test_sums_are_the_ledgers(ledger: "Store", called: list[data.Entry], corrections: list[data.Entry], draw: Any) -> None:
    voided = draw.draw(st.lists(st.sampled_from(called), max_size=3, unique_by=id))
    entries = [*called, *corrections, *(data.at(one, entry="void", calls=-1) for one in voided)]
    customer = f"c{next(NUMBERS)}"
    data.enter(ledger.client(), TENANT, [data.at(one, customer=customer) for one in entries])
    question = Question("1.2", SINCE, UNTIL, customer=customer)
    with ledger.reader(TENANT, SETTINGS) as reader:
        rows = data.read(b"".join(stream(reader, question, "parquet")), "parquet", "1.2")
        made, by_day = tally(reader, question), {day.day: day.cost_usd for day in days(reader, question)}
    expected: dict[str, Decimal] = {}
    for one in entries:
        expected[f"{one.at:%Y-%m-%d}"] = expected.get(f"{one.at:%Y-%m-%d}", Decimal(0)) + (one.cost_usd() or Decimal(0))
    found: dict[str, Decimal] = dict.fromkeys(expected, Decimal(0))
    for row in rows:
        found[f"{row['ChargePeriodStart']:%Y-%m-%d}"] += row["BilledCost"]
    assert found == expected == by_day
    assert made == (len(rows), sum(expected.values(), Decimal(0)))
    # Rounding alone is between what the price list says and the ledger: half of the last decimal a call, and a token type.
    apart = sum((abs(row["BilledCost"] - row["ContractedCost"]) for row in rows), Decimal(0))
    assert apart <= Decimal("1e-12") * (len(entries) + 10 * len(rows))
