-- What users query of what came of calls: outcomes that were reported, and those that a call's tags tell. Documented in docs/outcomes.md.
CREATE OR REPLACE VIEW outcomes AS
SELECT
    toInt8(1) AS counts,
    tenant, outcome, success, revenue_usd, at, customer, feature, agent, session,
    trace_id,
    '' AS span_id,
    tags, id, entered_at
FROM reported_outcomes FINAL
UNION ALL
SELECT
    -- A call that was taken back takes its outcome back.
    calls AS counts,
    tenant,
    tags['outcome'] AS outcome,
    toUInt8(lower(tags['outcome_success']) NOT IN ('false', '0', 'no')) AS success,
    if(calls < 0, -1, 1) * toDecimal64OrNull(tags['revenue_usd'], 12) AS revenue_usd,
    started_at AS at,
    customer, feature, agent, session,
    lower(hex(trace_id)) AS trace_id,
    lower(hex(span_id)) AS span_id,
    tags,
    '' AS id,
    entered_at
FROM ledger
WHERE calls != 0 AND tags['outcome'] != ''
