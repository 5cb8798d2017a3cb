"""Real calls for a probe: of a trace file, or of a feature's own history in the ledger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tallystick.attribution.moments import end_of_day, moment
from tallystick.attribution.spend import Ask, filters, period
from tallystick.attribution.sql_files import statement
from tallystick.probes.config import Feature
from tallystick.probes.load.traffic_mix import Call, Mix
from tallystick.traffic import DATA
from tallystick.traffic.blocks import PromptCache
from tallystick.traffic.files import BadLine, NotATrace, Request, open_trace

SHIPPED: Final[Mapping[str, Path]] = {
    "azure-conversation": DATA / "azure_2023_conv.csv.gz",
    "azure-code": DATA / "azure_2023_code.csv.gz",
    "mooncake": DATA / "mooncake_conversation.jsonl.gz",
}
"""Traces that come with the package, by the names that a configuration may give instead of a file's."""

MOST_CALLS: Final = 50_000
"""Of a feature, in one answer of the ledger: half of what it answers at most."""

_KNOWN: Final = "(input_tokens IS NOT NULL AND output_tokens IS NOT NULL)"
_STANDING: Final = """cache_hit = '' AND usage_source != 'none' AND (tenant, trace_id, span_id) NOT IN (
    SELECT tenant, trace_id, span_id FROM charges WHERE entry != 'call' AND calls != 0 AND /*conditions*/
    GROUP BY tenant, trace_id, span_id HAVING sum(calls) < 0
)"""


class NoCalls(ValueError):
    """There is nothing to replay. `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def trace_calls(name: Path) -> Mix:
    """All calls of a file, or of one of SHIPPED. Raises NoCalls; OSError where the file can't be read.

    Where a trace knows its prompts' blocks, cached tokens are those that a cache of five minutes would have held.
    """
    path = SHIPPED.get(str(name), name)
    try:
        trace = open_trace(path)
    except NotATrace as error:
        raise NoCalls(str(error), "`tallystick replay --help` says which traces are known") from None
    except FileNotFoundError:
        raise NoCalls(
            f"there is no trace {name}", f"name a file, or one of {', '.join(SHIPPED)}, which come with tallystick"
        ) from None
    items = list(trace.requests())
    requests = sorted((item for item in items if isinstance(item, Request)), key=lambda request: request.at_ns)
    cache = PromptCache()
    calls = tuple(
        Call(
            request.at_ns,
            request.input_tokens,
            cache.read(request.blocks, request.at_ns, request.input_tokens) if request.blocks else 0,
            request.output_tokens,
        )
        for request in requests
    )
    bad = sum(isinstance(item, BadLine) for item in items)
    notes = (f"{bad:,} of {trace.lines:,} lines of {path.name} hold no call and were passed over",) if bad else ()
    return Mix(f"trace {name}", calls, len(calls), 0, trace.first_ns, trace.last_ns + 1, notes)


def feature_calls(ask: Ask, feature: Feature, now_ns: int, *, most: int = MOST_CALLS, as_they_came: bool = False) -> Mix:
    """Calls of a feature whose tokens are known, at most so many: an even sample, or with `as_they_came` the first of its time.

    Raises NoCalls, UnknownDimension, and what `ask` raises.
    """
    source = "ledger" + "".join(f", {name}={value}" for name, value in feature.where.items())
    try:
        since, until = (
            moment(feature.since, now_ns),
            end_of_day(now_ns) if feature.until is None else moment(feature.until, now_ns),
        )
    except ValueError as error:
        raise NoCalls(f"`ledger`: {error}", "it is what `tallystick costs --since` takes") from None
    if since >= until:
        raise NoCalls(f"`ledger`: since {feature.since} isn't before until {feature.until or 'the end of today'}", "swap them")
    params: dict[str, Any] = {}
    within = period(since, until, params)
    parts = {
        "known": _KNOWN,
        "standing": _STANDING.replace("/*conditions*/", within),
        "conditions": " AND ".join([within, *filters(feature.where, params)]),
        "some": "started_at" if as_they_came else "cityHash64(trace_id, span_id)",
    }
    (totals,) = ask(_filled("feature_count", parts), params)
    if not totals["counted"]:
        unknown = f"; {totals['unknown']:,} were, without their tokens" if totals["unknown"] else ""
        raise NoCalls(
            f"no call of {source} was made since {feature.since}{unknown}", "`tallystick costs --by feature` shows what there is"
        )
    rows = ask(_filled("feature_calls", parts), params | {"most": most})
    calls = tuple(
        Call(
            at_ns=row["at_ns"],
            input_tokens=row["input_tokens"] + row["cached_tokens"] + row["written_tokens"],
            cached_tokens=row["cached_tokens"],
            output_tokens=row["output_tokens"],
            written_tokens=row["written_tokens"],
        )
        for row in rows
    )
    return Mix(source, calls, totals["counted"], totals["unknown"], since, min(until, now_ns), tuple(_notes(totals, calls)))


def _notes(totals: Mapping[str, Any], calls: tuple[Call, ...]) -> list[str]:
    notes = []
    if len(calls) < totals["counted"]:
        notes.append(f"{len(calls):,} of {totals['counted']:,} calls stand for all of them")
    if totals["unknown"]:
        whole = totals["counted"] + totals["unknown"]
        notes.append(f"{totals['unknown']:,} of {whole:,} calls are left out: their tokens aren't known")
    return notes


def _filled(name: str, parts: Mapping[str, str]) -> str:
    text = statement(name, "probing")
    for part, sql in parts.items():
        text = text.replace(f"/*{part}*/", sql)
    return text
