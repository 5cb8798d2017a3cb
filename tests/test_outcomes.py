"""Outcomes: reported over HTTP and told by tags, counted once, seen by their tenant alone."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from otlp import request, span
from server import Server

from tallystick.client import Client, Refused
from tallystick.ingest.outcomes import MOST, read_outcomes
from tallystick.ingest.payload import PayloadError

GOOD: dict[str, Any] = {"id": "1", "outcome": "resolved", "success": True}
ALL = "SELECT id, outcome, success, counts, revenue_usd, customer, tags, toString(at) AS at FROM outcomes ORDER BY at, id"


def post(server: Server, body: Any, key: str, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return server.http.post("/v1/outcomes", content=content, headers=sent)


def test_one_is_kept_as_it_was_told(server: Server) -> None:
    key = server.key("one-outcome")
    told = {
        **GOOD, "at": "2026-11-20T12:00:00+01:00", "revenue_usd": 0.1, "trace_id": "AB" * 16, "session": "s'1", "customer": "acme\t\"x\"",
        "feature": "support", "agent": "", "tags": {"plan": "pro"},
    }  # fmt: skip
    assert post(server, told, key).json() == {"accepted": 1, "rejected": []}
    (row,) = server.sql("SELECT * EXCEPT (entered_at) FROM outcomes", key)
    assert row == {
        "counts": 1, "tenant": "one-outcome", "outcome": "resolved", "success": 1, "revenue_usd": Decimal("0.1"), "at": "2026-11-20T11:00:00.000000000Z",
        "customer": "acme\t\"x\"", "feature": "support", "agent": "", "session": "s'1", "trace_id": "ab" * 16, "span_id": "", "tags": {"plan": "pro"},
        "id": "1",
    }  # fmt: skip


def test_the_same_id_counts_once_and_the_last_is_right(server: Server) -> None:
    key, other = server.key("idempotent"), server.key("idempotent-too")
    for _ in range(3):
        post(server, GOOD, key)
    post(server, [{**GOOD, "success": True}, {**GOOD, "success": False, "revenue_usd": "3"}], key)
    post(server, {**GOOD, "outcome": "theirs"}, other)
    assert [(row["outcome"], row["success"], row["revenue_usd"]) for row in server.sql(ALL, key)] == [("resolved", 0, Decimal(3))]
    assert [row["outcome"] for row in server.sql(ALL, other)] == ["theirs"]


def test_revenue_that_is_not_told_is_unknown(server: Server) -> None:
    key = server.key("unknown-revenue")
    post(server, [GOOD, {**GOOD, "id": "2", "revenue_usd": 0}], key)
    assert [row["revenue_usd"] for row in server.sql(ALL, key)] == [None, Decimal(0)]


def test_when_it_came_is_when_it_was_received_unless_told(server: Server) -> None:
    key = server.key("untimed")
    before = datetime.now(UTC)
    post(server, [GOOD, {**GOOD, "id": "2", "at": "2026-10-01 00:00"}], key)
    old, new = server.sql(ALL, key)
    assert old["at"] == "2026-10-01 00:00:00.000000000"
    assert before <= datetime.fromisoformat(new["at"][:26]).replace(tzinfo=UTC) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"id": ""}, "id", "at least 1 character"),
        ({"id": 7}, "id", "valid string"),
        ({"outcome": "x" * 257}, "outcome", "at most 256"),
        ({"success": "maybe"}, "success", "valid boolean"),
        ({"success": None}, "success", "valid boolean"),
        ({"revenue_usd": "1,5"}, "revenue_usd", "valid decimal"),
        ({"revenue_usd": True}, "revenue_usd", "should be an integer"),
        ({"revenue_usd": "NaN"}, "revenue_usd", "finite"),
        ({"revenue_usd": 1_000_000}, "revenue_usd", "6 digits before the decimal point"),
        ({"revenue_usd": "0.0000000000001"}, "revenue_usd", "12 decimal places"),
        ({"at": "yesterday"}, "at", "valid datetime"),
        ({"at": "2300-01-01"}, "at", "outside 1970 to 2199"),
        ({"trace_id": "xyz"}, "trace_id", "match pattern"),
        ({"tags": {"a": 1}}, "tags.a", "valid string"),
        ({"tags": {str(n): "" for n in range(65)}}, "tags", "at most 64"),
        ({"costumer": "acme"}, "costumer", "no such field: did you mean customer?"),
        ({"session": "\ud800"}, "session", "unicode"),
    ],
)
def test_a_bad_one_is_named_and_the_good_ones_are_kept(wrong: dict[str, Any], field: str, said: str) -> None:
    body = json.dumps([GOOD, {**GOOD, "id": "2", **wrong}, {**GOOD, "id": "3"}]).encode()
    kept, rejected = read_outcomes(body)
    assert [one.id for one in kept] == ["1", "3"]
    assert [(one.index, one.field) for one in rejected] == [(1, field)]
    assert said in rejected[0].message


def test_what_was_rejected_is_answered_by_index(server: Server) -> None:
    key = server.key("partly-bad")
    answer = post(server, [GOOD, 7, {"id": "2"}], key)
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    assert [(one["index"], one["field"]) for one in answer.json()["rejected"]] == [(1, ""), (2, "outcome"), (2, "success")]
    assert len(server.sql(ALL, key)) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b"7", 400, "malformed"),
        (b"[]", 400, "malformed"),
        (b"[" * 100_000, 400, "malformed"),
        (b'{"id": ' + b"9" * 5000 + b"}", 400, "malformed"),
        (b'{"id": "1"}', 422, "bad_outcomes"),
        (b"[" + b"1," * MOST + b"1]", 413, "too_many"),
    ],
)
def test_nothing_of_a_bad_request_is_kept(body: bytes, status: int, code: str) -> None:
    with pytest.raises(PayloadError) as refused:
        read_outcomes(body)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_a_body_may_be_compressed_and_not_too_large(server: Server) -> None:
    key = server.key("compressed")
    assert post(server, gzip.compress(json.dumps(GOOD).encode()), key, content_encoding="gzip").json()["accepted"] == 1
    assert post(server, gzip.compress(b" " * (9 << 20)), key, content_encoding="gzip").status_code == 413
    assert post(server, b" " * (9 << 20), key).status_code == 413
    assert server.http.post("/v1/outcomes", json=GOOD, headers={"authorization": "Bearer wrong"}).status_code == 401


def test_tags_of_a_call_tell_an_outcome(server: Server) -> None:
    key = server.key("tagged")
    told = {"tallystick.tag.outcome": "paid", "tallystick.tag.revenue_usd": "19.99", "tallystick.customer": "acme"}
    failed = {
        "tallystick.tag.outcome": "returned",
        "tallystick.tag.outcome_success": "False",
        "tallystick.tag.revenue_usd": "lots",
    }
    server.post_all(
        [request(span("told", attributes=told)), request(span("failed", attributes=failed)), request(span("none"))], key
    )
    rows = {row["outcome"]: row for row in server.sql("SELECT * FROM outcomes", key)}
    assert {name: (row["success"], row["revenue_usd"], row["counts"]) for name, row in rows.items()} == {
        "paid": (1, Decimal("19.99"), 1),
        "returned": (0, None, 1),
    }
    assert rows["paid"]["customer"] == "acme"
    (call,) = server.sql("SELECT trace_id, span_id FROM charges WHERE customer = 'acme'", key)
    assert (rows["paid"]["trace_id"], rows["paid"]["span_id"]) == (call["trace_id"], call["span_id"])


def test_a_tenant_sees_its_own_and_nothing_below(server: Server) -> None:
    mine, theirs = server.key("mine-only"), server.key("theirs-only")
    post(server, {**GOOD, "customer": "secret"}, theirs)
    assert server.sql("SELECT count() AS n FROM outcomes WHERE tenant = 'theirs-only'", mine) == [{"n": 0}]
    assert server.sql("SELECT DISTINCT tenant FROM outcomes", theirs) == [{"tenant": "theirs-only"}]
    with Client(server.url, mine) as client:
        for table in ("reported_outcomes", "tallystick.reported_outcomes", "prices", "tallystick.prices", "ledger"):
            with pytest.raises(Refused) as refused:
                client.sql(f"SELECT * FROM {table}")
            assert refused.value.code == "no_such_table"


def test_a_tenant_sees_rates_of_its_own_prices(server: Server) -> None:
    mine, theirs, operator = server.key("rated"), server.key("rated-too"), server.key("rated", operator=True)
    server.post_all([request(span("mine"))], mine)
    server.post_all(
        [request(span("theirs", attributes={"gen_ai.response.model": "gpt-4o", "gen_ai.request.model": "gpt-4o"}))], theirs
    )
    names = {
        key: {str(row["price_id"]) for row in server.sql("SELECT price_id FROM price_rates", key)}
        for key in (mine, theirs, operator)
    }
    assert [len(names[mine]), len(names[theirs])] == [1, 1]
    assert names[mine] | names[theirs] <= names[operator]
    (own,) = names[mine]
    with Client(server.url, mine) as client:
        price = client.price(own)
        (rates,) = client.sql("SELECT * FROM price_rates").dicts()
    assert price is not None
    for name in ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "audio_input", "image_input"):
        assert rates[f"{name}_usd"] * 1_000_000 == Decimal(price[f"{name}_usd_per_million"]), name
    assert rates["request_usd"] == Decimal(price["request_usd"])


def test_the_client_reports(server: Server) -> None:
    with Client(server.url, server.key("client-reports")) as client:
        answer = client.report_outcomes([{**GOOD, "revenue_usd": Decimal("0.3"), "at": datetime(2026, 11, 1, tzinfo=UTC)}])
        assert answer == {"accepted": 1, "rejected": []}
        assert client.sql("SELECT sum(revenue_usd) AS usd FROM outcomes").dicts() == [{"usd": Decimal("0.3")}]


def test_what_was_accepted_outlives_a_kill(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.start()
    key = server.key("killed")
    assert post(server, [{**GOOD, "id": str(number)} for number in range(100)], key).json()["accepted"] == 100
    server.kill()
    with server:
        assert server.sql("SELECT sum(counts) AS n FROM outcomes", key) == [{"n": 100}]
