"""The tables that dialects are: consistent, and every row of them does what it says in the ledger."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from otlp import pairs, request, span, trace_hex
from server import Server

from tallystick.schema import dialects
from tallystick.schema.dialects import COUNTS, LAYERS, Attribute, attributes, columns, usage_names
from tallystick.schema.normalise import normalise_sql

TOKENS = {
    "input_total": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_5m_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
    "audio_input": "audio_input_tokens",
    "audio_output": "audio_output_tokens",
}
SAME = {
    "provider", "request_model", "response_model", "response_id", "service_tier", "error_type", "cache_hit",
    "customer", "feature", "agent", "team", "user", "session",
}  # fmt: skip
ELSEWHERE = {
    # What stands inside them is read, or they tell how to read others: shown by the recordings.
    "span_kind", "operation_name", "invocation_parameters", "answer", "parameters", "finish", "log_messages", "error_level", "log_kind",
    "log_duration", "usage_text", "metadata", "tenant", "image_input",
}  # fmt: skip
STARTED_NS = time.time_ns() // 10**9 * 10**9 - 7_200_000_000_000
BARE = {
    "claude-code": "com.anthropic.claude_code",
    "logfire": "logfire.openai",
    "openinference": "openinference.instrumentation.openai",
}


def golden(attribute: Attribute, place: int) -> tuple[Any, str, Any]:
    """What is sent as this attribute, the column of `charges` that it fills, and with what."""
    first_token = datetime.fromtimestamp(STARTED_NS / 1e9 + 0.25, UTC).isoformat()
    match attribute.unit, attribute.column:
        case "count", column:
            return 40 + place, TOKENS[column], 40 + place
        case "s", _:
            return 0.25, "ttft_ms", 250
        case "ms", _:
            return 250.0, "ttft_ms", 250
        case "text", "ttft_at":
            return f'"{first_token}"', "ttft_ms", 250
        case "usd", _:
            return 0.125, "reported_cost_usd", Decimal("0.125")
        case "flag", _:
            return True, "streamed", 1
        case "text", "usage_source":
            return "estimated", "usage_source", "estimated"
        case "text", "first_token_kind":
            return "reasoning", "ttft_kind", "reasoning"
        case "text", column if column in SAME:
            # Of its own, for two calls with one response id are one.
            text = f"{place}-{attribute.attribute}"
            return text, column, text.lower() if column in {"provider", "service_tier"} else text
    raise AssertionError(f"no example of {attribute}")


EXAMPLES = [one for one in attributes() if one.column not in ELSEWHERE]


def key_and_scope(attribute: str) -> tuple[str, str]:
    """An attribute without a dot in its name means something under its own instrumentation only."""
    bare, _, key = attribute.rpartition(":")
    return key, BARE.get(bare, "some.instrumentation")


@pytest.fixture(scope="module")
def rows(server: Server) -> dict[str, dict[str, Any]]:
    """Trace name → row: for each attribute a call that has nothing else to say, and for each column one that has all its attributes."""
    key = server.key("dialects")
    bodies = []
    for i, one in enumerate(EXAMPLES):
        name, scope = key_and_scope(one.attribute)
        base: dict[str, Any] = {"gen_ai.operation.name": "chat"} | (
            {"gen_ai.request.stream": True} if one.column.endswith(("ttft_s", "ttft_ms", "ttft_at", "token_kind")) else {}
        )
        base |= {"gen_ai.response.time_to_first_chunk": 0.25} if one.column == "first_token_kind" else {}
        bodies.append(request(bare_span(one.attribute, i, base | {name: golden(one, 0)[0]}), scope=scope))
    for i, column in enumerate(sorted({one.column for one in EXAMPLES})):
        rivals = [one for one in EXAMPLES if one.column == column and ":" not in one.attribute]
        said = {one.attribute: golden(one, place)[0] for place, one in reversed(list(enumerate(rivals)))}
        if column in SAME or column in TOKENS:
            bodies.append(
                request(
                    bare_span(f"all of {column}", len(EXAMPLES) + i, {"gen_ai.operation.name": "chat"} | said),
                    scope="some.instrumentation",
                )
            )
    server.post_all(bodies, key)
    return {row["trace_id"]: row for row in server.sql("SELECT * FROM charges", key)}


def bare_span(name: str, i: int, given: dict[str, Any]) -> Any:
    """Calls that don't overlap, so that none is taken for another's. Those that tell a time by the clock start at STARTED_NS."""
    start_ns = STARTED_NS if any("completion_start" in one for one in given) else STARTED_NS - (i + 1) * 3_000_000_000
    made = span(name, start_ns=start_ns)
    del made.attributes[:]
    made.name = "call"
    made.attributes.extend(pairs(given))
    return made


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: one.attribute)
def test_an_attribute_fills_its_column(one: Attribute, rows: dict[str, dict[str, Any]]) -> None:
    _, column, expected = golden(one, 0)
    assert rows[trace_hex(one.attribute)][column] == expected


@pytest.mark.parametrize("column", sorted({one.column for one in EXAMPLES if one.column in SAME or one.column in TOKENS}))
def test_the_preferred_attribute_wins(column: str, rows: dict[str, dict[str, Any]]) -> None:
    first = next(one for one in EXAMPLES if one.column == column)
    _, name, expected = golden(first, 0)
    assert rows[trace_hex(f"all of {column}")][name] == expected


def test_every_column_is_accounted_for() -> None:
    assert {one.column for one in attributes()} == {one.column for one in EXAMPLES} | ELSEWHERE


def test_no_attribute_twice() -> None:
    names = [one.attribute for one in attributes()]
    assert len(names) == len(set(names)) == len(columns().ranks)
    assert len(set(columns().ranks.values())) == len(names)


def test_ranks_put_texts_before_numbers() -> None:
    for one in attributes():
        assert (columns().ranks[one.attribute] >= columns().first_number) is one.numeric


def test_names_without_a_dot_belong_to_a_dialect() -> None:
    bare = {row.bare for row in dialects.dialects()} - {""}
    for one in attributes():
        assert "." in one.attribute.rpartition(":")[2] or one.attribute.split(":")[0] in bare, one


def test_every_dialect_can_be_reached() -> None:
    """The first whose scope matches applies: none stands behind one that takes all of its scopes; the last takes any."""
    known = dialects.dialects()
    for later, row in enumerate(known):
        for before in known[:later]:
            assert not row.scope.removeprefix("=").startswith(before.scope), f"{row} never applies: {before} does"
        assert row.layer in LAYERS
        assert row.zero in {"known", "unknown"}
        assert row.absent in {"zero", "unknown"}
        assert row.estimates in {"no", "streams"}
        assert row.finish in {"finish", "unsaid", "ok", "message", "langfuse"}
    assert known[-1].scope == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x.one", "text"), ("b", "x.two", "text"), ("a", "x.three", "text")], "must stand together"),
        ([("a", "x.one", "text"), ("a", "x.two", "count")], "one unit"),
        ([("a", f"x.{i}", "text") for i in range(32)], "at most 31"),
        ([("a", "x.one", "text"), ("b", "x.one", "text")], "fills two columns"),
    ],
)
def test_an_inconsistent_table_is_refused(
    rows: list[tuple[str, str, str]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tuple(Attribute(column, "any", name, unit, "") for column, name, unit in rows)
    monkeypatch.setattr(dialects, "attributes", lambda: table)
    with pytest.raises(ValueError, match=message):
        columns.__wrapped__()


def test_usage_objects_name_each_count_once() -> None:
    names = usage_names()
    assert len(names) == len(COUNTS)
    flat = [name for one in names for name in one if name]
    assert len(flat) == len(set(flat))


def test_the_statement_is_whole() -> None:
    sql = normalise_sql("work.otlp_in")
    assert "{{" not in sql
    assert "}}" not in sql
    assert "work.otlp_in" in sql


def test_texts_become_literals_that_end_where_they_end() -> None:
    assert dialects.quote("it's \\ here\n") == r"'it\'s \\ here\n'"
