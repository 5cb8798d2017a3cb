-- Calls of the ledger that turned out to be told of by a better span: their entries again, also those that corrected them, with opposite signs.
UNION ALL
SELECT
    'void', -calls, tenant, customer, feature, agent, team, user, session, service, environment, tags, provider, request_model, response_model, operation,
    service_tier, streamed, toString(status), error_type, cache_hit, -input_tokens, -cache_read_tokens, -cache_write_5m_tokens, -cache_write_1h_tokens,
    -output_tokens, -reasoning_tokens, -audio_input_tokens, -audio_output_tokens, -image_input_tokens, toString(usage_source), started_at, duration_ns,
    ttft_ns, ttft_kind, price_id, -cost_usd, -reported_cost_usd, trace_id, span_id, parent_span_id, response_id, response_key, process,
    scope, layer, is_log, now64(3), 'another span tells of this call'
FROM ledger
WHERE {{turn}} AND (tenant, started_at, trace_id, span_id) IN
(
    SELECT tenant, started_at, trace_id, span_id FROM near
    WHERE entry = 'call' AND (tenant, trace_id, span_id) IN (SELECT tenant, trace_id, span_id FROM lost WHERE stored)
)
