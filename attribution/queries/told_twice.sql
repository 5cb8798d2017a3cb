-- Calls that stand and have their answer's id in common with another one of their tenant, as ingest/same_call.py looks at them. Those whose
-- response_key is {{part}} modulo {{parts}}; {{condition}} is filled by attribution/voids.py.
WITH
shared AS
(
    SELECT response_key
    FROM ledger
    WHERE entry IN ('call', 'void') AND {{condition}} AND response_key != 0 AND response_key % {{parts}} = {{part}}
    GROUP BY response_key
    HAVING sum(calls) > 1
)
SELECT
    1 AS stored, tenant, trace_id, span_id, parent_span_id, response_id, process, service, scope, layer, is_log,
    toUnixTimestamp64Nano(started_at) AS begin_ns,
    toUnixTimestamp64Nano(started_at) + toInt64(duration_ns) AS end_ns,
    lower(splitByChar('/', request_model)[-1]) AS model,
    input_tokens + coalesce(cache_read_tokens, 0) + coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0) AS total_input,
    output_tokens,
    toString(usage_source),
    isNotNull(cache_read_tokens) + isNotNull(cache_write_5m_tokens) + isNotNull(reasoning_tokens) + 4 * (coalesce(cache_write_1h_tokens, 0) > 0) AS detail,
    customer, feature, agent, team, user, session,
    provider, request_model, response_model, service_tier
FROM ledger
WHERE entry = 'call'
    AND {{condition}}
    AND response_key IN (shared)
    AND (tenant, trace_id, span_id) NOT IN
    (
        SELECT tenant, trace_id, span_id
        FROM ledger
        WHERE entry = 'void' AND {{condition}} AND response_key IN (shared)
        GROUP BY tenant, trace_id, span_id
        HAVING sum(calls) < 0
    )
LIMIT {{most}}
