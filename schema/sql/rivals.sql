-- Calls of the batch and calls of the ledger near it, as far as it takes to see whether two spans tell of one call.
SELECT
    stored, tenant, trace_id, span_id, parent_span_id, response_id, response_key, process, service, scope, layer, is_log,
    toUnixTimestamp64Nano(started_at) AS begin_ns,
    toUnixTimestamp64Nano(started_at) + toInt64(duration_ns) AS end_ns,
    lower(splitByChar('/', request_model)[-1]) AS model,
    input_tokens + coalesce(cache_read_tokens, 0) + coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0) AS total_input,
    output_tokens,
    usage_source,
    isNotNull(cache_read_tokens) + isNotNull(cache_write_5m_tokens) + isNotNull(reasoning_tokens) + 4 * (coalesce(cache_write_1h_tokens, 0) > 0) AS detail,
    customer, feature, agent, team, user, session,
    provider, request_model, response_model, service_tier, cache_hit
FROM
(
    SELECT
        0 AS stored, tenant, trace_id, span_id, parent_span_id, response_id, response_key, process, service, scope, layer, is_log, started_at,
        duration_ns, provider, request_model, response_model, service_tier, cache_hit, input_tokens, cache_read_tokens, cache_write_5m_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, usage_source, customer, feature, agent, team, user, session
    FROM staged
    WHERE problem = '' AND (tenant, trace_id, span_id) NOT IN (SELECT tenant, trace_id, span_id FROM near WHERE entry = 'call')
    LIMIT 1 BY tenant, trace_id, span_id
    UNION ALL
    SELECT
        1 AS stored, tenant, trace_id, span_id, parent_span_id, response_id, response_key, process, service, scope, layer, is_log, started_at,
        duration_ns, provider, request_model, response_model, service_tier, cache_hit, input_tokens, cache_read_tokens, cache_write_5m_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, toString(usage_source), customer, feature, agent, team, user, session
    FROM near
    WHERE entry = 'call' AND (tenant, trace_id, span_id) NOT IN
    (
        -- Of a void that was undone there are both signs.
        SELECT tenant, trace_id, span_id FROM near WHERE entry = 'void' GROUP BY tenant, trace_id, span_id HAVING sum(calls) < 0
    )
)
