"""What the writer tells the engine as text is read as it was."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.ingest.work import insert_rows, tab_separated

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
RATES = st.decimals(min_value=-(10**13), max_value=10**13, places=24, allow_nan=False)
ROWS = st.lists(
    st.tuples(
        TEXTS, st.binary(max_size=20), RATES, st.integers(-(2**63), 2**63 - 1), st.booleans(),
        st.lists(TEXTS, max_size=3).map(tuple), st.lists(RATES, max_size=3).map(tuple),
        st.integers(946_684_800_000_000, 4_102_444_800_000_000).map(lambda us: datetime.fromtimestamp(us // 10**6, UTC).replace(microsecond=us % 10**6)),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_rows_are_read_as_they_were(chdb_client: "Client", rows: list[tuple[Any, ...]]) -> None:
    chdb_client.command(
        "CREATE OR REPLACE TEMPORARY TABLE told (text String, bytes String, rate Decimal(38, 24), number Int64, flag UInt8,"
        " texts Array(String), rates Array(Decimal(38, 24)), at DateTime64(6, 'UTC')) ENGINE = Memory"
    )
    insert_rows(chdb_client, "told", rows)
    found = chdb_client.query("SELECT * EXCEPT bytes, hex(bytes) FROM told").result_rows
    shown = [
        (text, rate, number, int(flag), list(texts), list(rates), at.replace(tzinfo=None), data.hex().upper())
        for text, data, rate, number, flag, texts, rates, at in rows
    ]
    assert [(*row[:6], row[6].replace(tzinfo=None), row[7]) for row in found] == shown


@pytest.mark.parametrize("value", [None, 1.5, {}])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        tab_separated([value])
