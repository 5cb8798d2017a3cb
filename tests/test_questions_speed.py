"""latency and ab: what is measured of which calls, and figures that statistics' own definitions give for the same numbers."""

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from statistics import NormalDist, fmean, variance
from typing import Any

import pytest
from asked import Call, asked, enter

from tallystick.ingest.store import Store

AT = datetime(2026, 10, 10, 8, tzinfo=UTC)
OCTOBER = {"since": "2026-10-01", "until": "2026-11-01"}
_IDS = count(1)


def tenant() -> str:
    return f"speed-{next(_IDS)}"


def call(
    seconds: float = 1, ttft_ms: float | None = None, *, streamed: int | None = 1, id_: int | None = None, **more: Any
) -> Call:
    id_ = next(_IDS) if id_ is None else id_
    extra = {
        "span_id": id_.to_bytes(8, "big"),
        "duration_ns": round(seconds * 1e9),
        "ttft_ns": None if ttft_ms is None else round(ttft_ms * 1e6),
        "streamed": streamed,
    }
    return Call(AT, trace_id=more.pop("trace_id", id_).to_bytes(16, "big"), more=extra | more.pop("more", {}), **more)


def latency(store: Store, of: str, **more: str) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in asked(store, of, "latency", **{**OCTOBER, "by": "total", **more})}


def test_percentiles_are_ranks(chdb_store: Store) -> None:
    of = tenant()
    spread = random.Random(6).sample(range(1, 2001), 2000)
    # 11 tokens: 10 after the first, 5 ms each.
    enter(chdb_store, of, [call((n + 50) / 1000, n, output_tokens=11) for n in spread])
    measures = latency(chdb_store, of)
    assert list(measures) == ["ttft", "tpot", "end_to_end"]
    assert {row["n"] for row in measures.values()} == {2000}
    assert (measures["ttft"]["mean_ms"], measures["ttft"]["max_ms"]) == (1000.5, 2000)
    for percentile in (50, 90, 95, 99):
        # A rank of 1 % either way is what t-digest promises.
        assert measures["ttft"][f"p{percentile}_ms"] == pytest.approx(20 * percentile, abs=20)
        assert measures["end_to_end"][f"p{percentile}_ms"] == pytest.approx(20 * percentile + 50, abs=20)
        assert measures["tpot"][f"p{percentile}_ms"] == 5


@pytest.mark.parametrize(
    ("n", "known"), [(9, ""), (10, "50"), (49, "50"), (50, "50 90"), (99, "50 90"), (100, "50 90 95"), (500, "50 90 95 99")]
)
def test_a_percentile_needs_five_calls_above_it(chdb_store: Store, n: int, known: str) -> None:
    of = tenant()
    enter(chdb_store, of, [call(1, 100) for _ in range(n)])
    row = latency(chdb_store, of)["ttft"]
    assert [p for p in ("50", "90", "95", "99") if row[f"p{p}_ms"] is not None] == known.split()
    assert row["mean_ms"] == 100


def test_which_calls_are_measured(chdb_store: Store) -> None:
    of = tenant()
    twice = call(9, 900)
    enter(
        chdb_store,
        of,
        [
            call(1, 100),
            call(2, 200, streamed=None),
            call(3, 300, streamed=0),
            call(4),
            call(5, 500, status="error"),
            call(6, 600, status="cancelled"),
            call(7, 700, more={"cache_hit": "redis"}),
            twice,
            Call(twice.started_at, Decimal(-1), entry="void", calls=-1, trace_id=twice.trace_id, more=dict(twice.more)),
        ],
    )
    # An unpriced call that a reprice took back and entered again, and a difference: it's the same call.
    kept = call(8, 800, cost_usd=None)
    again = [
        Call(kept.started_at, Decimal(1), entry="reprice", calls=n, trace_id=kept.trace_id, more=dict(kept.more))
        for n in (-1, 1, 0)
    ]
    enter(chdb_store, of, [kept, *again])
    measures = latency(chdb_store, of)
    assert {name: (row["n"], row["mean_ms"], row["max_ms"]) for name, row in measures.items()} == {
        "ttft": (3, round((100 + 200 + 800) / 3, 3), 800),
        "tpot": (4, round((900 + 1800 + 2700 + 7200) / 9 / 4, 3), 800),
        "end_to_end": (5, 3600, 8000),
    }
    assert {(row["errors"], row["cancelled"]) for row in measures.values()} == {(1, 1)}


def test_a_void_that_was_undone_counts_again(chdb_store: Store) -> None:
    of = tenant()
    one = call(1, 100)
    both = [Call(one.started_at, None, entry="void", calls=n, trace_id=one.trace_id, more=dict(one.more)) for n in (-1, 1)]
    enter(chdb_store, of, [one, *both])
    assert latency(chdb_store, of)["ttft"]["n"] == 1


def test_groups_with_most_calls_come_first(chdb_store: Store) -> None:
    of = tenant()
    enter(chdb_store, of, [call(n, feature=name) for name, n in (("a", 1), ("b", 2), ("b", 4), ("c", 8), ("c", 8), ("c", 8))])
    rows = asked(chdb_store, of, "latency", **OCTOBER, by="feature", limit="2")
    assert [(row["feature"], row["measure"], row["mean_ms"]) for row in rows] == [
        ("c", "ttft", None), ("c", "tpot", None), ("c", "end_to_end", 8000),
        ("b", "ttft", None), ("b", "tpot", None), ("b", "end_to_end", 3000),
    ]  # fmt: skip
    assert asked(chdb_store, of, "latency", **OCTOBER, where=["feature=z"]) == []


def ab(store: Store, of: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in asked(store, of, "ab", **{**OCTOBER, "a": "v1", "b": "v2", **more})}


def version(name: str) -> dict[str, str]:
    return {"prompt_version": name}


# t of 0.975 for 7 degrees of freedom (NIST's table); with two samples alike in size and spread Welch's are 2 × (5 − 1) = 8: 2.306.
T_8 = 2.306004135


def test_means_by_welch(chdb_store: Store) -> None:
    of = tenant()
    old, new = [1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 5.0, 6.0, 7.0]
    enter(chdb_store, of, [call(s, s * 10, cost_usd=Decimal(s), tags=version("v1")) for s in old])
    enter(chdb_store, of, [call(s, s * 10, cost_usd=Decimal(s), tags=version("v2"), output_tokens=20) for s in new])
    enter(chdb_store, of, [call(50, tags=version("v3"))])
    found = ab(chdb_store, of)
    reach = T_8 * math.sqrt(variance(old) / 5 + variance(new) / 5)
    for measure, scale in (("cost_usd", 1), ("ttft_ms", 10), ("end_to_end_ms", 1000)):
        row = found[measure]
        assert (row["a_n"], row["b_n"], row["a"], row["b"]) == (5, 5, scale * fmean(old), scale * fmean(new))
        assert (row["difference"], row["change"]) == (scale * 2, pytest.approx(2 / 3))
        assert (row["low"], row["high"]) == (
            pytest.approx(scale * (2 - reach), rel=1e-3),
            pytest.approx(scale * (2 + reach), rel=1e-4),
        )
        assert row["verdict"] == "too few"
    # All calls of a version alike: nothing is uncertain.
    assert [found["output_tokens"][name] for name in ("a", "b", "low", "high")] == [10, 20, 10, 10]
    assert found["input_tokens"]["difference"] == 0


def test_a_version_whose_calls_are_all_alike(chdb_store: Store) -> None:
    of = tenant()
    enter(chdb_store, of, [call(2, tags=version("v1")) for _ in range(9)])
    enter(chdb_store, of, [call(s, tags=version("v2")) for s in (3, 4, 5, 6, 7)])
    # Welch's degrees of freedom are the other's, 4: 2.776.
    reach = 2.776445 * math.sqrt(2.5 / 5) * 1000
    row = ab(chdb_store, of)["end_to_end_ms"]
    assert [row["low"], row["high"]] == pytest.approx([3000 - reach, 3000 + reach], rel=1e-3)


def wilson(hits: int, n: int) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    middle, root = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return (middle - root) / (n + z * z), (middle + root) / (n + z * z)


def newcombe(a: tuple[int, int], b: tuple[int, int]) -> tuple[float, float]:
    p, q = a[0] / a[1], b[0] / b[1]
    (p_low, p_high), (q_low, q_high) = wilson(*a), wilson(*b)
    return q - p - math.hypot(q - q_low, p_high - p), q - p + math.hypot(q_high - q, p - p_low)


def test_newcombe_by_his_own_example() -> None:
    # Newcombe 1998, table II, (a): 56/70 against 48/80.
    assert list(newcombe((48, 80), (56, 70))) == pytest.approx([0.0524, 0.3339], abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((48, 80), (56, 70), "b is higher"),
        ((56, 70), (48, 80), "b is lower"),
        ((9, 10), (3, 10), "too few"),
        ((5, 56), (0, 29), "too few"),
        ((10, 40), (10, 40), "no difference shown"),
        ((0, 40), (0, 40), "no difference shown"),
    ],
)
def test_shares_by_newcombe(chdb_store: Store, a: tuple[int, int], b: tuple[int, int], verdict: str) -> None:
    of = tenant()
    for name, (hits, n) in (("v1", a), ("v2", b)):
        enter(chdb_store, of, [call(tags=version(name), status="error" if at < hits else "ok") for at in range(n)])
    row = ab(chdb_store, of)["error_rate"]
    assert (row["a_n"], row["b_n"], row["a"], row["b"]) == (a[1], b[1], a[0] / a[1], b[0] / b[1])
    assert [row["low"], row["high"]] == pytest.approx(newcombe(a, b), abs=1e-9)
    assert row["verdict"] == verdict


def test_corrected_calls_are_compared_as_corrected(chdb_store: Store) -> None:
    of = tenant()
    first, twice, unpriced = (
        call(1, tags=version("v1"), cost_usd=Decimal(1)),
        call(tags=version("v1")),
        call(tags=version("v2"), cost_usd=None),
    )
    more = [
        Call(
            AT,
            Decimal("0.5"),
            entry="reprice",
            calls=0,
            trace_id=first.trace_id,
            tags=version("v1"),
            more=dict(first.more),
            input_tokens=None,
        ),
        Call(AT, Decimal("-0.01"), entry="void", calls=-1, trace_id=twice.trace_id, tags=version("v1"), more=dict(twice.more)),
        Call(AT, Decimal(900), entry="allocation", calls=0, tags=version("v1")),
    ]
    enter(chdb_store, of, [first, twice, unpriced, *more])
    found = ab(chdb_store, of)
    assert [found["cost_usd"][name] for name in ("a_n", "b_n", "a", "b", "low", "verdict")] == [1, 0, 1.5, None, None, "too few"]
    assert (found["input_tokens"]["a"], found["input_tokens"]["b"]) == (100, 100)


def test_another_dimension_and_filter(chdb_store: Store) -> None:
    of = tenant()
    enter(
        chdb_store, of, [call(1, response_model="x"), call(2, response_model="y"), call(3, response_model="y", customer="other")]
    )
    found = ab(chdb_store, of, dimension="model", a="x", b="y", where=["customer=acme"])
    assert (found["end_to_end_ms"]["a"], found["end_to_end_ms"]["b"], found["end_to_end_ms"]["b_n"]) == (1000, 2000, 1)
    assert ab(chdb_store, of) == {}


def test_outcomes_belong_to_the_version_of_their_trace_or_session(chdb_store: Store) -> None:
    of = tenant()
    enter(
        chdb_store, of, [call(tags=version("v1"), trace_id=1, session="s1"), call(tags=version("v1"), trace_id=1, session="s1")]
    )
    enter(
        chdb_store, of, [call(tags=version("v2"), trace_id=2, session="s2"), call(tags=version("v2"), trace_id=3, session="both")]
    )
    enter(
        chdb_store,
        of,
        [call(tags=version("v1"), trace_id=4, session="both"), call(tags=version("v2") | {"outcome": "done"}, trace_id=5)],
    )
    told = [
        ("o1", "", 1, 1),
        ("o2", "s1", 0, 0),
        ("o3", "s2", 0, 1),
        ("o4", "both", 0, 1),
        ("o5", "", 3, 0),
        ("o6", "elsewhere", 9, 1),
    ]
    rows = [
        [of, id_, AT + timedelta(days=40), "resolved", success, session, f"{trace:032x}" if trace else ""]
        for id_, session, trace, success in told
    ]
    columns = ("tenant", "id", "at", "outcome", "success", "session", "trace_id")
    chdb_store.client().insert("reported_outcomes", rows, column_names=columns)
    row = ab(chdb_store, of)["success_rate"]
    # v1: o1 and not o2. v2: o3, the call's own, and not o5; o4's session has both.
    assert (row["a_n"], row["b_n"], row["a"], row["b"]) == (2, 3, 0.5, pytest.approx(2 / 3))
