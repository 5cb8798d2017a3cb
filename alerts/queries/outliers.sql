-- Calls of a scope with more tokens than is usual of their model; those that were voided are none.
(
    SELECT
        /*arm*/ AS arm,
        lower(hex(trace_id)) AS trace,
        any(/*model*/) AS model,
        sum(/*tokens*/) AS used,
        sum(cost_usd) AS cost,
        min(started_at) AS began
    FROM ledger
    WHERE entry IN ('call', 'void') AND /*conditions*/ AND abs(/*tokens*/) > transform(/*model*/, /*models*/, /*limits*/, 9223372036854775807)
    GROUP BY tenant, trace_id, span_id
    HAVING sum(calls) > 0
    ORDER BY used DESC
    LIMIT 3
)
