"""The search for what a batch may repeat: of a large ledger it reads the keys of the minutes around the batch."""

import re
import time
from collections.abc import Iterator

import otlp
import pytest

from tallystick.attribution.prices import PriceBook
from tallystick.ingest.store import EmbeddedStore, read_sql
from tallystick.ingest.writer import Item, Writer

TENANT = "near"
CALLS = 200_000
DAY_NS = 86_400 * 10**9
FILL = f"""INSERT INTO ledger (entry, calls, tenant, started_at, duration_ns, trace_id, span_id, response_id, response_key)
SELECT 'call', 1, '{TENANT}', fromUnixTimestamp64Nano(toInt64({{start:Int64}} + number * {3 * DAY_NS // CALLS}), 'UTC'), 1,
    toFixedString(unhex(hex(generateUUIDv4())), 16), reinterpret(rand64(1), 'FixedString(8)'), toString(number), xxHash32(toString(number))
FROM numbers({CALLS})"""


@pytest.fixture(scope="module")
def plan(chdb_store: EmbeddedStore) -> Iterator[str]:
    """How a batch of one span of the day before yesterday is searched for among the calls of three days."""
    client = chdb_store.client()
    now = time.time_ns()
    client.command(FILL, parameters={"start": now - 3 * DAY_NS})
    client.command("OPTIMIZE TABLE ledger FINAL")
    writer = Writer(chdb_store, PriceBook())
    writer._work.ready()
    payload = otlp.request(otlp.span("near", start_ns=now - 2 * DAY_NS)).SerializeToString()
    writer._stage([Item(payload, 1, TENANT, now)])
    search = read_sql("near").replace("{{processes}}", "").replace("{{tenants}}", f"'{TENANT}'")
    yield "\n".join(str(row[0]) for row in client.query(f"EXPLAIN indexes = 1 {search}").result_rows)
    client.command(f"ALTER TABLE ledger DELETE WHERE tenant = '{TENANT}' SETTINGS mutations_sync = 1")


def test_the_index_narrows_it_down_to_the_minutes_around(plan: str) -> None:
    index = plan.split("PrimaryKey", 1)[1]
    assert "tenant in 1-element set" in index
    assert "toStartOfMinute(started_at) in 5-element set" in index
    granules = re.search(r"Granules: (\d+)/(\d+)", index)
    assert granules
    assert int(granules[2]) > 20
    assert int(granules[1]) <= 2


def test_of_what_is_left_it_reads_keys(plan: str) -> None:
    """Tenant and minute are compared where a key was met: of millions of calls they took longer than the rest."""
    first = re.search(r"Prewhere filter column: (.*)", plan)
    assert first
    assert set(re.findall(r"trace_id|response_key|response_id|tenant|started_at", first[1])) == {
        "trace_id",
        "response_key",
        "response_id",
    }
