"""SQL of users, on the engine as it runs in the product: what is answered, to whom, how values look, and where it ends."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.attribution.spend import DIMENSIONS, spend
from tallystick.attribution.user_sql import BadQuery, QueryTooExpensive, Result

Ask = Callable[..., Result]
OCTOBER_NS = 1_790_812_800 * 10**9

QUESTIONS = [
    "SELECT customer, sum(cost_usd) AS cost FROM charges GROUP BY customer ORDER BY cost DESC",
    "SELECT toDate(started_at) AS day, feature, sum(calls), sum(cost_usd) FROM charges GROUP BY day, feature ORDER BY ALL",
    "SELECT tags['plan'] AS plan, uniqExact(user), countIf(status = 'error') FROM charges GROUP BY plan",
    "SELECT request_model, quantiles(0.5, 0.95)(ttft_ms), avgOrNull(tpot_ms) FROM charges WHERE streamed GROUP BY request_model",
    "SELECT customer, argMax(request_model, cost_usd), max(cost_usd) FROM charges GROUP BY customer",
    "SELECT day, sum(cost) OVER (ORDER BY day) AS so_far, lagInFrame(cost) OVER (ORDER BY day ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    " FROM (SELECT date_trunc('day', started_at) AS day, sum(cost_usd) AS cost FROM charges GROUP BY day)",
    "SELECT customer, feature, sum(calls) AS n, rank() OVER w FROM charges GROUP BY customer, feature"
    " WINDOW w AS (PARTITION BY customer ORDER BY n DESC)",
    "WITH dear AS (SELECT customer, sum(cost_usd) AS cost FROM charges GROUP BY customer HAVING cost > 0.01),"
    " total AS (SELECT sum(cost) AS all FROM dear) SELECT customer, cost / total.all FROM dear CROSS JOIN total",
    "SELECT c.customer, c.n, d.n FROM (SELECT customer, count() AS n FROM charges GROUP BY customer) AS c"
    " LEFT JOIN (SELECT customer, count() AS n FROM charges WHERE feature = 'chat' GROUP BY customer) AS d USING (customer)",
    "SELECT customer, team, sum(cost_usd) FROM charges GROUP BY ROLLUP(customer, team) ORDER BY 1, 2",
    "SELECT if(grouping(customer) = 1, 'all', customer), count() FROM charges GROUP BY GROUPING SETS ((customer), ())",
    "SELECT JSONExtractUInt(tags['note'], 'seats') AS seats, count() FROM charges GROUP BY seats",
    "SELECT key, uniq(value) FROM charges ARRAY JOIN mapKeys(tags) AS key, mapValues(tags) AS value GROUP BY key",
    "SELECT customer FROM charges WHERE customer IN (SELECT customer FROM charges WHERE status = 'error') LIMIT 1 BY customer",
    "SELECT 'a' AS which, count() FROM charges WHERE feature = 'chat' UNION ALL SELECT 'b', count() FROM charges",
    "SELECT toStartOfInterval(started_at, INTERVAL 1 WEEK) AS week, sum(calls) FROM charges GROUP BY week"
    " ORDER BY week WITH FILL STEP INTERVAL 1 WEEK",
    "SELECT multiIf(cost_usd IS NULL, 'unpriced', cost_usd > 0.001, 'dear', 'cheap') AS class, count() FROM charges GROUP BY class",
    "SELECT customer, arrayMap(x -> round(x, 2), groupArray(10)(toFloat64(ttft_ms))) FROM charges GROUP BY customer",
    "SELECT CASE WHEN feature LIKE 'ch%' THEN 'c' ELSE 's' END AS f, sum(input_tokens) FILTER (WHERE streamed) FROM charges GROUP BY f",
    "SELECT (SELECT sum(cost_usd) FROM charges) AS total, total / count(), count(DISTINCT session) FROM charges",
    "SELECT * EXCEPT (tags) FROM charges ORDER BY started_at DESC NULLS LAST LIMIT 3 OFFSET 1",
    "SELECT COLUMNS('_tokens$') APPLY sum FROM charges",
    "SELECT charges.customer, cast(sum(cost_usd) AS Decimal(9, 4)), sum(calls)::Float64 FROM tallystick.charges GROUP BY 1",
    "SELECT trace_id, toTimeZone(started_at, 'Europe/Berlin'), formatDateTime(ended_at, '%Y-%m'), date_diff('second', started_at, ended_at)"
    " FROM charges WHERE started_at BETWEEN '2026-10-02' AND toDateTime64('2026-10-03T12:00:00Z', 9) AND user IN ('u1', 'u9')",
    "SELECT number, sum(calls) FROM numbers(10) AS n LEFT JOIN charges ON toHour(started_at) = number GROUP BY number ORDER BY number",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
    "SELECT provider, sumMap(map(request_model, calls)), topK(2)(user), windowFunnel(3600)(toDateTime(started_at), feature = 'chat')"
    " FROM charges GROUP BY provider QUALIFY row_number() OVER (ORDER BY provider) = 1",
]  # fmt: skip


@pytest.mark.parametrize("query", QUESTIONS)
def test_questions_of_finops_are_answered(ask: Ask, query: str) -> None:
    assert ask("acme", query).rows


# Each way by which rows of others could come along: everything that is asked for names them.
SNEAKY = [
    "SELECT * FROM charges",
    "SELECT DISTINCT tenant, customer FROM charges",
    "SELECT groupUniqArray(tenant), groupUniqArray(customer) FROM charges",
    "SELECT * FROM charges WHERE tenant = 'globex'",
    "SELECT * FROM charges WHERE tenant != 'acme' OR 1",
    "SELECT * FROM (SELECT * FROM charges) WHERE tenant = 'globex'",
    "SELECT a.customer, b.customer FROM charges AS a LEFT JOIN charges AS b ON a.started_at = b.started_at",
    "SELECT a.customer, b.customer FROM charges AS a FULL JOIN charges AS b ON a.tenant = b.tenant",
    "SELECT a.customer, b.customer FROM charges AS a, charges AS b LIMIT 20000",
    "SELECT customer FROM charges AS a ANTI LEFT JOIN (SELECT customer FROM charges WHERE tenant = 'acme') AS b USING (customer)",
    "WITH charges AS (SELECT * FROM charges) SELECT customer FROM charges",
    "WITH x AS (SELECT * FROM charges), y AS (SELECT * FROM x) SELECT customer FROM y UNION ALL SELECT customer FROM x",
    "SELECT customer FROM charges UNION ALL SELECT customer FROM tallystick.charges",
    "SELECT customer FROM charges WHERE 'globex' IN (SELECT tenant FROM charges)",
    "SELECT (SELECT groupArray(tenant) FROM charges)",
    "SELECT max(tenant), min(customer), max(user), argMax(customer, cost_usd), max(cost_usd) FROM charges",
    "SELECT customer, sum(cost_usd) FROM charges GROUP BY customer WITH CUBE",
    "SELECT lagInFrame(customer) OVER (ORDER BY started_at, tenant ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM charges",
    "SELECT any(customer) OVER (), first_value(tenant) OVER (ORDER BY tenant DESC) FROM charges",
    "SELECT customer FROM charges EXCEPT SELECT customer FROM charges WHERE tenant = 'acme'",
    "SELECT topK(10)(customer), histogram(5)(toFloat64(cost_usd)) FROM charges",
    "SELECT toStartOfHour(started_at) AS h, customer, feature, agent, team, sum(cost_usd) FROM charges"
    " GROUP BY h, customer, feature, agent, team",
]


@pytest.mark.parametrize("query", SNEAKY)
def test_a_tenant_sees_no_row_of_another(ask: Ask, query: str) -> None:
    assert "globex" not in json.dumps(ask("acme", query).rows)
    assert "acme" not in json.dumps(ask("globex", query).rows)
    assert "initech" not in json.dumps(ask("globex", query).rows)


TOTALS = (
    "SELECT count(), sum(calls), sum(cost_usd), max(started_at), uniqExact(tenant) FROM charges WHERE started_at < '2026-11-15'"
)


def test_tenants_make_up_the_whole(ask: Ask) -> None:
    # 119 calls less one void of which 100 are priced: the sixth of every six isn't, nor is the void (119 % 6 = 5).
    assert ask("acme", TOTALS).rows == [[120, 118, "0.1000000001", "2026-10-30T18:00:00.000000001Z", 1]]
    assert ask("globex", TOTALS).rows == [[120, 118, "700", "2026-10-30T18:00:00.000000001Z", 1]]
    assert ask(None, TOTALS + " AND tenant IN ('acme', 'globex')").rows[0][:3] == [240, 236, "700.1000000001"]


@pytest.mark.parametrize("tenant", ["", "nobody", "acme' OR '1'='1", "tenant:acme", "ACME", "acme ", "\\", "'"])
def test_a_name_that_is_no_tenant_sees_nothing(ask: Ask, tenant: str) -> None:
    assert ask(tenant, "SELECT count() FROM charges").rows == [[0]]


@pytest.mark.parametrize(
    "probe",
    [
        "SELECT count() FROM charges WHERE toUInt8(if(tenant = 'globex', customer, '1')) = 1",
        "SELECT count() FROM charges WHERE intDiv(1, tenant != 'globex') = 1",
        "SELECT sum(toUInt8(replaceOne(customer, 'globex-customer', 'secret') != 'secret' ? '1' : 'x')) FROM charges",
        "SELECT count() FROM charges WHERE toDecimal32(if(tenant = 'globex', '99999999999', '1'), 2) > 0",
    ],
)
def test_an_error_tells_nothing_of_others(ask: Ask, probe: str) -> None:
    # Each fails on the first row of globex that it is put to.
    with pytest.raises(BadQuery):
        ask("globex", probe)
    assert ask("acme", probe).rows


def test_named_queries_of_the_product_are_allowed(ask: Ask) -> None:
    for name in [*DIMENSIONS, "tag:plan", "tag:it's"]:
        query = spend([name], OCTOBER_NS, OCTOBER_NS + 31 * 86_400 * 10**9, where={"customer": "initech"}, limit=5)
        assert ask("acme", query.text, query.params).rows
    assert ask("acme", (files("tallystick.attribution") / "queries" / "unpriced.sql").read_text(), {"since": OCTOBER_NS}).columns


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("1::UInt64 * 18446744073709551615", "UInt64", 2**64 - 1),
        ("toInt64(-9223372036854775808)", "Int64", -(2**63)),
        ("toInt256('-57896044618658097711785492504343953926634992332820282019728792003956564819968')", "Int256", -(2**255)),
        ("toDecimal64('0.000000000001', 12)", "Decimal(18, 12)", "0.000000000001"),
        ("[toDecimal64('1.50', 12)]", "Array(Decimal(18, 12))", ["1.5"]),
        ("0.1 + 0.2", "Float64", 0.1 + 0.2),
        ("nan", "Float64", None),
        ("[inf, 1]", "Array(Float64)", [None, 1]),
        ("NULL", "Nullable(Nothing)", None),
        ("true", "Bool", True),
        ("toDate('2026-01-02')", "Date", "2026-01-02"),
        ("toDateTime('2026-01-02 03:04:05', 'UTC')", "DateTime('UTC')", "2026-01-02T03:04:05Z"),
        (
            "toDateTime64('2026-01-02 03:04:05.123456789', 9, 'Europe/Berlin')",
            "DateTime64(9, 'Europe/Berlin')",
            "2026-01-02T02:04:05.123456789Z",
        ),
        ("unhex('61FF00')", "String", "a\N{REPLACEMENT CHARACTER}\0"),
        ("toFixedString('ab', 4)", "FixedString(4)", "ab\0\0"),
        ("'/\"\\'\n\u2028\N{GRINNING FACE}'", "String", "/\"'\n\u2028\N{GRINNING FACE}"),
        ("map('a', 1)", "Map(String, UInt8)", {"a": 1}),
        ("(1, 'a')", "Tuple(UInt8, String)", [1, "a"]),
        ("CAST('b' AS Enum('a' = 1, 'b' = 2))", "Enum8('a' = 1, 'b' = 2)", "b"),
        ('\'{"a": {"b": [1]}}\'::JSON', "JSON", {"a": {"b": [1]}}),
        ("toIPv4('127.0.0.1')", "IPv4", "127.0.0.1"),
        ("sumState(1)", "AggregateFunction(sum, UInt8)", "\x01\0\0\0\0\0\0\0"),
    ],
)
def test_values_of_every_kind(ask: Ask, expression: str, kind: str, value: Any) -> None:
    found = ask("acme", f"SELECT {expression} AS x")
    assert (found.columns, found.rows) == ([("x", kind)], [[value]])
    assert found.elapsed_ms > 0


def test_equal_names_of_columns_are_kept(ask: Ask) -> None:
    found = ask("acme", "SELECT 1 AS a, 2 AS b, a FROM numbers(2) -- twice\n;")
    assert [column.name for column in found.columns] == ["a", "b", "a"]
    assert found.rows == [[1, 2, 1], [1, 2, 1]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(), many=st.lists(st.text(), max_size=3))
def test_text_binds_as_it_is(ask: Ask, value: str, many: list[str]) -> None:
    query = "SELECT {value:String}, {many:Array(String)}, hex({value:String}), '{value:String} %(value)s $value$'"
    found = ask("acme", query, {"value": value, "many": many}).rows
    assert found == [[value, many, value.encode().hex().upper(), "{value:String} %(value)s $value$"]]


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("Nullable(String)", None, None),
        ("Bool", True, True),
        ("Array(Bool)", [True, False], [True, False]),
        ("UInt64", 2**64 - 1, 2**64 - 1),
        ("Decimal(18, 12)", "0.000000000001", "0.000000000001"),
        ("Decimal(18, 12)", 1.5, "1.5"),
        ("DateTime64(9, 'UTC')", "2026-01-01T00:00:00.123456789", "2026-01-01T00:00:00.123456789Z"),
        ("DateTime64(3, 'UTC')", "2026-01-01 00:00:00", "2026-01-01T00:00:00.000Z"),
        ("Array(Array(Nullable(Int8)))", [[1, None], []], [[1, None], []]),
    ],
)
def test_values_of_other_kinds_bind(ask: Ask, kind: str, value: Any, found: Any) -> None:
    assert ask("acme", f"SELECT {{p:{kind}}}", {"p": value}).rows == [[found]]


def test_the_client_puts_no_value_into_the_text(ask: Ask) -> None:
    query = "SELECT count() FROM charges WHERE customer = '%(p)s' OR customer = '$p$' OR customer = '{p:String}'"
    for name in ("p", "$p$", "1"):
        with pytest.raises(BadQuery, match="The query has no") as refused:
            ask("acme", query, {name: "' OR 1 OR '"})
        assert refused.value.code == "bad_parameter"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "There is no value for p"),
        ({"p": 1, "q": 2}, "The query has no q"),
        ({"p": "x"}, "cannot be parsed as UInt8"),
        ({"p": "\ud800"}, "valid Unicode"),
        ({"p": None}, "cannot be parsed as UInt8"),
        ({"p": {"a": 1}}, "cannot be parsed as UInt8"),
        ({"p": json.loads("[" * 600 + "]" * 600)}, "deeply nested"),
    ],
)
def test_wrong_parameters_are_named(ask: Ask, params: dict[str, Any], told: str) -> None:
    with pytest.raises(BadQuery, match=told):
        ask("acme", "SELECT {p:UInt8}", params)


@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        ("", "syntax_error", "The query is empty."),
        ("  \n", "syntax_error", "The query is empty."),
        ("-- nothing", "syntax_error", "Empty query."),
        ("SELECT '\ud800'", "syntax_error", "The query isn't valid Unicode."),
        ("SELEC 1", "syntax_error", "Syntax error: failed at position 7 (1): 1."),
        ("SELECT\n1,\n,2", "syntax_error", "Syntax error: failed at position 12 (2) (line 3, col 2): 2."),
        (
            "SELECT custmer FROM charges",
            "unknown_identifier",
            "Unknown expression identifier `custmer`. Maybe you meant: ['customer'].",
        ),
        (
            "SELECT sum(customer) FROM charges",
            "illegal_type_of_argument",
            "Illegal type String of argument for aggregate function sum.",
        ),
        (
            "SELECT customer, sum(calls) FROM charges",
            "not_an_aggregate",
            "Column 'tallystick.charges.customer' is not under aggregate function and not in GROUP BY keys.",
        ),
        ("SELECT toUInt8('x')", "cannot_parse_text", "Cannot parse string 'x' as UInt8"),
        ("SELECT intDiv(1, 0)", "illegal_division", "Division by zero"),
        ("SELECT 1 UNION SELECT 2", "expected_all_or_distinct", "Expected ALL or DISTINCT"),
        ("SELECT * FROM calls", "no_such_table", "There is no table calls."),
        ("SELECT foo(1)", "no_such_function", "There is no function foo here."),
        ("SELECT version()", "no_such_function", "There is no function version here."),
        ("DESCRIBE charges", "not_a_select", "Only SELECT can be asked."),
        ("SELECT 1 SETTINGS max_threads = 1", "not_allowed", "SETTINGS can't be used here."),
        ("SELECT 1 FORMAT CSV", "not_allowed", "FORMAT can't be used here."),
    ],
)
def test_errors_say_what_is_wrong(ask: Ask, query: str, code: str, told: str) -> None:
    with pytest.raises(BadQuery) as refused:
        ask("acme", query)
    assert refused.value.code == code
    assert refused.value.message.startswith(told.rstrip("."))
    for internal in ("Code:", "DB::Exception", "parseQueryToJSON", "version 2", "in scope"):
        assert internal not in refused.value.message


def test_a_failed_query_leaves_nothing_to_the_next(chdb_store: Any) -> None:
    from tallystick.attribution.user_sql import READER_SETTINGS, run

    with chdb_store.reader("acme", READER_SETTINGS) as reader:
        for query in ("SELECT toUInt8(number = 5 ? 'x' : '1') FROM numbers(10)", "SELECT number FROM numbers(100001)"):
            with pytest.raises(BadQuery):
                run(reader, query, None)
            assert run(reader, "SELECT 7", None).rows == [[7]]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT count() FROM numbers(1000000000000)", "too_slow"),
        ("SELECT count() FROM (SELECT number AS n FROM numbers(2) ORDER BY n WITH FILL TO 1000000000000)", "too_slow"),
        ("WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count() FROM t", "too_complex"),
        ("SELECT number FROM numbers(100001)", "too_many_rows"),
        ("SELECT repeat('x', 1000000) FROM numbers(1000)", "too_much_memory"),
        ("SELECT length(arrayMap(x -> x * 2, range(400000000)))", "too_much_memory"),
        ("SELECT " + "1, " * 30_000 + "1", "too_complex"),
        ("SELECT " + "1 + " * 1_000 + "1", "too_complex"),
        ("SELECT '" + "x" * 65_536 + "'", "too_complex"),
        ("SELECT " + "(" * 201 + "1" + ")" * 201, "too_complex"),
        ("SELECT " + "[(" * 15_000, "too_complex"),
        ("SELECT '" + ")" * 20_000 + "', " + "[(" * 15_000, "too_complex"),
        ("SELECT " + "INTERVAL (" * 195, "too_complex"),
        ("SELECT 1" + " BETWEEN 1 AND 2" * 30, "too_complex"),
        ("SELECT " + "(" * 30 + "1" + "/**/bETween/**/1 AND 2)" * 30, "too_complex"),
        ("SELECT 1" + " BETWEEN 1 AND 2" * 15, "too_complex"),
    ],
)
def test_what_costs_too_much_is_stopped(ask: Ask, query: str, code: str) -> None:
    with pytest.raises(QueryTooExpensive) as refused:
        ask("acme", query, max_execution_time=1)
    assert refused.value.code == code
    assert refused.value.hint


def test_long_but_reasonable_queries_pass(ask: Ask) -> None:
    names = ", ".join(f"'customer {n}'" for n in range(2_500))
    assert ask("acme", f"SELECT count() FROM charges WHERE customer IN ({names})").rows == [[0]]
    cases = " ".join(f"WHEN lower(customer) = 'c{n}' AND (calls + {n}) * 2 > 4 THEN [{n}, ({n} + 1)]" for n in range(700))
    assert ask("acme", f"SELECT count(CASE {cases} ELSE [0] END) FROM charges").rows == [[120]]
    ranges = ", ".join(f"countIf(input_tokens BETWEEN {n}000 AND {n}999)" for n in range(10))
    assert ask("acme", f"SELECT {ranges} FROM charges").rows[0][1] == 120
    assert ask("acme", "SELECT number FROM numbers(100000)").rows[-1] == [99_999]
