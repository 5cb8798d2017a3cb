-- The batch's calls, priced, into the ledger: each span once, each call once. {{…}} is filled by ingest/writer.py.
INSERT INTO ledger
(
    entry, calls, tenant, customer, feature, agent, team, user, session, service, environment, tags, provider, request_model, response_model, operation,
    service_tier, streamed, status, error_type, cache_hit, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
    reasoning_tokens, audio_input_tokens, audio_output_tokens, image_input_tokens, usage_source, started_at, duration_ns, ttft_ns, ttft_kind, price_id,
    cost_usd, reported_cost_usd, trace_id, span_id, parent_span_id, response_id, response_key, process, scope, layer, is_log, entered_at, reason
)
SELECT
    'call' AS entry, 1 AS calls, s.tenant, s.customer, s.feature, s.agent, s.team, s.user, s.session, s.service, s.environment, s.tags, s.provider, s.request_model, s.response_model, s.operation,
    s.service_tier, s.streamed, s.status, s.error_type, s.cache_hit, s.input_tokens, s.cache_read_tokens, s.cache_write_5m_tokens, s.cache_write_1h_tokens,
    s.output_tokens, s.reasoning_tokens, s.audio_input_tokens, s.audio_output_tokens, s.image_input_tokens, s.usage_source, s.started_at, s.duration_ns,
    s.ttft_ns, s.ttft_kind, {{cost}}, s.reported_cost_usd, s.trace_id, s.span_id, s.parent_span_id, s.response_id, s.response_key, s.process,
    s.scope, s.layer, s.is_log, now64(3) AS entered_at, '' AS reason
FROM
(
    SELECT {{columns}} FROM staged AS staged {{heirs}}
    WHERE problem = '' AND {{turn}} AND {{unseen}}
    {{once}}
) AS s
{{join}}
