"""The entries of the ledger themselves, page by page: the question as SQL over `charges`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallystick.attribution.spend import Query, entered_before, filters, period

_TEMPLATE: Final = (Path(__file__).parent / "queries" / "charges_page.sql").read_text(encoding="utf-8")

COLUMNS: Final = (
    "entry", "calls", "tenant", "customer", "feature", "agent", "team", "user", "session", "service", "environment", "tags", "provider",
    "request_model", "response_model", "operation", "service_tier", "streamed", "status", "error_type", "cache_hit", "input_tokens",
    "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens",
    "audio_output_tokens", "image_input_tokens", "usage_source", "started_at", "ended_at", "ttft_ms", "ttft_kind", "tpot_ms", "price_id",
    "cost_usd", "reported_cost_usd", "trace_id", "span_id", "response_id", "entered_at", "reason", "correction",
)  # fmt: skip
"""Of `charges`; docs/charges.md describes them."""

_HASHED: Final = tuple(name for name in COLUMNS if name not in ("started_at", "trace_id", "span_id", "entry", "entered_at"))


class Place(NamedTuple):
    """Where a page ended: the last entry's key, and how many entries with this very key were told up to there.

    at_ns: started_at, nanoseconds since 1970; entered_ms: entered_at, milliseconds. hash: of the rest of the entry, in decimal.
    """

    at_ns: int
    trace_id: str
    span_id: str
    entry: int
    entered_ms: int
    hash: str
    told: int


_KEY: Final = ("key_at", "trace_id", "span_id", "key_entry", "key_entered", "key_hash")


def charges(
    since_ns: int,
    until_ns: int,
    *,
    where: Mapping[str, str] | None = None,
    as_of_ns: int | None = None,
    after: Place | None = None,
    limit: int,
) -> Query:
    """The query for entries that started in [since, until), nanoseconds since 1970, the newest first, filtered by equality of dimensions.

    Its columns are COLUMNS and what `place` reads. as_of_ns: only what was entered before. after: where the page before ended. Entries that come
    while pages are read are told if they are older than the page, and no entry is told twice or left out. Raises UnknownDimension.
    """
    params: dict[str, Any] = {"limit": limit, "skip": after.told if after else 0}
    conditions = [period(since_ns, until_ns, params), *filters(where or {}, params), *entered_before(as_of_ns, params)]
    older = list(conditions)
    if after is not None:
        params |= {f"after_{name}": value for name, value in after._asdict().items() if name != "told"}
        at = "fromUnixTimestamp64Nano({after_at_ns:Int64}, 'UTC')"
        older.append(f"started_at < {at}")
        # The first condition alone is one that the ledger's order can be searched by.
        conditions += [
            f"started_at <= {at}",
            f"(started_at < {at}"
            " OR (trace_id, span_id, key_entry, key_entered, key_hash)"
            " <= ({after_trace_id:String}, {after_span_id:String}, {after_entry:Int8}, {after_entered_ms:Int64}, {after_hash:String}))",
        ]
    text = (
        _TEMPLATE.replace("/*columns*/", "".join(f"{name}, " for name in COLUMNS))
        .replace("/*hashed*/", ", ".join(_HASHED))
        .replace("/*conditions*/", " AND ".join(conditions))
        .replace("/*older*/", " AND ".join(older))
    )
    return Query(text, params)


def place(rows: Sequence[Mapping[str, Any]], before: Place | None) -> Place:
    """Where a page of rows ended, that began at `before`. There is at least one row."""
    keys = [tuple(row[name] for name in _KEY) for row in rows]
    last = keys[-1]
    told = next((number for number, key in enumerate(reversed(keys)) if key != last), len(keys))
    if told == len(keys) and before is not None and before[:-1] == last:
        told += before.told
    return Place._make((*last, told))
