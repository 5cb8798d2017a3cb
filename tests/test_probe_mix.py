"""Real calls as a workload: of the traces that come with the package, of files, and of the ledger by SQL as users send it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Ask as AskAsUser
from entries import Entry, a_ledger

from tallystick.attribution.spend import Ask, UnknownDimension
from tallystick.probes.config import Feature
from tallystick.probes.load.traffic_mix import Call, repeated, sampled
from tallystick.probing.mix import SHIPPED, NoCalls, feature_calls, trace_calls

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NOW_NS = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp()) * 1_000_000_000
OCTOBER = {"since": "2026-10-01", "until": "2026-11-01"}


@pytest.fixture(scope="module")
def acme(ask: AskAsUser) -> Ask:
    def asked(query: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        found = ask("acme", query, params)
        names = [column.name for column in found.columns]
        return [dict(zip(names, row, strict=True)) for row in found.rows]

    return asked


@pytest.mark.parametrize(
    ("name", "calls", "prompts", "outputs"),
    [("azure-conversation", 19_366, 22_361_870, 4_088_665), ("azure-code", 8_819, 18_059_974, 245_896)],
)
def test_traces_that_come_along(name: str, calls: int, prompts: int, outputs: int) -> None:
    mix = trace_calls(Path(name))
    assert (len(mix.calls), mix.counted, mix.unknown, mix.notes) == (calls, calls, 0, ())
    assert sum(call.input_tokens for call in mix.calls) == prompts
    assert sum(call.output_tokens for call in mix.calls) == outputs
    assert not any(call.cached_tokens for call in mix.calls)
    assert mix.since_ns == mix.calls[0].at_ns
    assert mix.calls[-1].at_ns == mix.until_ns - 1


def test_a_trace_with_blocks_knows_what_was_cached() -> None:
    mix = trace_calls(Path("mooncake"))
    share = sum(call.cached_tokens for call in mix.calls) / sum(call.input_tokens for call in mix.calls)
    assert 0.2 < share < 0.5
    assert all(0 <= call.cached_tokens <= call.input_tokens for call in mix.calls)
    assert all(one.at_ns <= other.at_ns for one, other in zip(mix.calls, mix.calls[1:], strict=False))


def test_a_file_of_ones_own_with_bad_lines(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-11-01 12:00:01,20,2\nrubbish\n2026-11-01 12:00:00,10,1\n")
    mix = trace_calls(file)
    assert [(call.input_tokens, call.output_tokens) for call in mix.calls] == [(10, 1), (20, 2)]
    assert mix.notes == ("1 of 3 lines of own.csv hold no call and were passed over",)


def test_what_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NoCalls, match="of no known trace"):
        trace_calls(tmp_path / "notes.txt")
    with pytest.raises(NoCalls, match="there is no trace azure_code") as missing:
        trace_calls(Path("azure_code"))
    assert all(name in missing.value.hint for name in SHIPPED)


def test_a_features_history(acme: Ask) -> None:
    mix = feature_calls(acme, Feature(where={"feature": "chat"}, **OCTOBER), NOW_NS)
    assert (mix.source, len(mix.calls), mix.counted, mix.unknown, mix.notes) == ("ledger, feature=chat", 60, 60, 0, ())
    # Every second of the tenant's, six hours each: what was read from the cache belongs to the prompt.
    assert mix.calls[1] == Call(mix.calls[0].at_ns + 12 * 3_600_000_000_000, 1502, 500, 102, 0)
    assert mix.calls[1].uncached_tokens == 1002


def test_calls_that_were_refused_are_no_load(acme: Ask) -> None:
    mix = feature_calls(acme, Feature(where={"feature": "search"}, **OCTOBER), NOW_NS)
    refused = {1000 + n for n in range(11, 120, 12)}
    assert len(mix.calls) == 60 - len(refused)
    assert not refused & {call.input_tokens for call in mix.calls}


def test_a_sample_is_even_and_always_the_same(acme: Ask) -> None:
    feature = Feature(where={"feature": "chat"}, **OCTOBER)
    sample, again = (feature_calls(acme, feature, NOW_NS, most=20) for _ in range(2))
    first = feature_calls(acme, feature, NOW_NS, most=20, as_they_came=True)
    whole = feature_calls(acme, feature, NOW_NS)
    assert sample == again
    assert sample.notes == ("20 of 60 calls stand for all of them",)
    assert first.calls == whole.calls[:20] != sample.calls
    assert set(sample.calls) < set(whole.calls)
    assert sorted(sample.calls) == list(sample.calls)


def test_what_is_not_known_or_was_taken_back(chdb_client: "Client", chdb_path: Path) -> None:
    at = datetime(2026, 10, 5, tzinfo=UTC)
    twice = Entry(at, trace=4)
    entries = [
        Entry(at, trace=1, tokens=(100, 20, 30, 40, 10)),
        Entry(at, trace=2, tokens=(100, None, None, None, None)),
        Entry(at, trace=3, tokens=(None, None, None, None, 7)),
        twice,
        replace(twice, entry="void", calls=-1),
        Entry(at, trace=5, cache_hit="redis"),
        Entry(at, trace=6, entry="reprice", calls=0),
    ]
    with a_ledger(chdb_client, chdb_path) as ledger:
        ledger.enter(entries)

        def asked(query: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
            return list(ledger.client.query(query, parameters=dict(params)).named_results())

        mix = feature_calls(asked, Feature(where={}, **OCTOBER), NOW_NS)
    assert mix.calls == (Call(int(at.timestamp()) * 1_000_000_000, 190, 20, 10, 70),)
    assert (mix.counted, mix.unknown, mix.notes) == (1, 2, ("2 of 3 calls are left out: their tokens aren't known",))


def test_dimensions_and_tags(acme: Ask) -> None:
    both = Feature(where={"customer": "hooli", "tag:plan": "paid", "model": "claude-opus-4-5"}, **OCTOBER)
    assert {call.input_tokens - 1000 for call in feature_calls(acme, both, NOW_NS).calls} == {
        5,
        17,
        29,
        41,
        53,
        65,
        77,
        89,
        101,
        113,
    } | {n for n in range(120) if n % 6 == 5 and n % 12 != 11}


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (Feature(where={"feature": "chta"}, **OCTOBER), "no call of ledger, feature=chta was made since 2026-10-01"),
        (Feature(since="yesterday"), "'yesterday' is no time"),
        (Feature(since="2026-11-02", until="2026-11-01"), "since 2026-11-02 isn't before until 2026-11-01"),
    ],
)
def test_a_history_that_is_not_there(acme: Ask, feature: Feature, said: str) -> None:
    with pytest.raises(NoCalls, match=said):
        feature_calls(acme, feature, NOW_NS)


def test_a_dimension_that_is_not_there(acme: Ask) -> None:
    with pytest.raises(UnknownDimension, match="did you mean feature"):
        feature_calls(acme, Feature(where={"featur": "chat"}, **OCTOBER), NOW_NS)


def test_samples_and_repetitions() -> None:
    calls = [Call(at * 10, at, 0, 1) for at in range(10)]
    assert [call.input_tokens for call in sampled(calls, 4)] == [0, 2, 5, 7]
    assert sampled(calls, 20) == tuple(calls)
    assert [call.at_ns for call in repeated(calls[5:8], 7)] == [0, 10, 20, 30, 40, 50, 60]
    assert [call.input_tokens for call in repeated(calls[5:8], 7)] == [5, 6, 7, 5, 6, 7, 5]
    with pytest.raises(ValueError, match="no call"):
        repeated([], 1)
