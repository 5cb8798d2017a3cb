"""The dialect tables: consistent, and each row of use."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import pytest

from tallystick.schema.dialects import COUNTS, LAYERS, attributes, columns, dialects, quote, usage_names
from tallystick.schema.normalise import normalise_sql

SPANS = Path(__file__).parent / "spans"


def test_every_column_has_one_unit_and_its_rows_stand_together() -> None:
    table = columns()
    assert set(table.texts).isdisjoint(table.numbers)
    assert max(table.texts.values()) < min(table.numbers.values()), "the statement tells texts from numbers by their rank"
    assert len(set(table.ranks.values())) == len(table.ranks) == len(attributes())


def test_the_preferred_attribute_comes_first() -> None:
    ranks = columns().ranks
    assert ranks["gen_ai.usage.input_tokens"] < ranks["gen_ai.usage.prompt_tokens"] < ranks["llm.token_count.prompt"]
    assert ranks["tallystick.user"] < ranks["user.id"], "what was said on purpose wins over what an instrumentation fills in"


def test_dialects_are_complete_and_the_last_takes_the_rest() -> None:
    known = dialects()
    assert known[-1].scope == ""
    assert all(d.scope for d in known[:-1])
    for dialect in known:
        assert dialect.layer in LAYERS
        assert dialect.zero in {"known", "unknown"}
        assert dialect.absent in {"zero", "unknown"}
        assert dialect.estimates in {"no", "streams"}
        assert dialect.finish in {"finish", "ok", "message", "langfuse", "unsaid"}


def test_no_dialect_hides_behind_a_broader_one() -> None:
    scopes = [d.scope for d in dialects()[:-1]]
    for place, scope in enumerate(scopes):
        for earlier in scopes[:place]:
            broader = not earlier.startswith("=") and scope.startswith(earlier)
            assert not broader, f"{scope} is never reached: {earlier} comes before it"


def test_each_recorded_source_is_recognised() -> None:
    for path in sorted(SPANS.glob("[!_]*/*.json")):
        for resource in json.loads(path.read_text())["otlp"]["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                name = scope["scope"]["name"]
                if name in {"app", "opentelemetry.instrumentation.httpx"}:
                    continue
                known = [
                    d for d in dialects()[:-1] if (name == d.scope[1:] if d.scope.startswith("=") else name.startswith(d.scope))
                ]
                assert known, f"{path.name}: {name}"


def test_usage_names_are_said_once() -> None:
    names = [name for group in usage_names() for name in group if name]
    assert len(names) == len(set(names))
    assert len(usage_names()) == len(COUNTS)


def test_the_statement_is_whole() -> None:
    sql = normalise_sql("work.otlp_in")
    assert "{{" not in sql
    assert "FROM work.otlp_in" in sql
    for attribute in attributes():
        assert quote(attribute.attribute) in sql


@pytest.mark.parametrize("name", ["attributes.csv", "dialects.csv", "usage.csv"])
def test_tables_have_no_empty_or_ragged_rows(name: str) -> None:
    text = files("tallystick.schema.dialects").joinpath(name).read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(row[0].strip() for row in rows)


def test_literals_are_quoted() -> None:
    assert quote("it's \\ here\n") == r"'it\'s \\ here\n'"
