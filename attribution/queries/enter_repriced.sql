-- What a new price makes of the calls of `priced_calls.sql`, as entries: the difference, or, of a call that had no price, the call taken
-- back and entered again with one. A call that has no price any more stays as it is. {{…}} is filled by attribution/reprice.py.
INSERT INTO {{beside}}
(
    entry, calls, tenant, customer, feature, agent, team, user, session, service, environment, tags, provider, request_model, response_model, operation,
    service_tier, streamed, status, error_type, cache_hit, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens,
    reasoning_tokens, audio_input_tokens, audio_output_tokens, image_input_tokens, usage_source, started_at, price_id, cost_usd, trace_id, span_id,
    entered_at, reason, correction
)
SELECT
    'reprice', arrayJoin(if(held_unpriced, [-1, 1], [0])) AS sign, tenant, customer, feature, agent, team, user, session, service, environment, tags,
    provider, request_model, response_model, operation, service_tier, streamed, status, error_type, cache_hit,
    if(sign = 0, NULL, sign * input_tokens), if(sign = 0, NULL, sign * cache_read_tokens), if(sign = 0, NULL, sign * cache_write_5m_tokens),
    if(sign = 0, NULL, sign * cache_write_1h_tokens), if(sign = 0, NULL, sign * output_tokens), if(sign = 0, NULL, sign * reasoning_tokens),
    if(sign = 0, NULL, sign * audio_input_tokens), if(sign = 0, NULL, sign * audio_output_tokens), if(sign = 0, NULL, sign * image_input_tokens),
    usage_source, started_at, if(sign < 0, '', price_id), if(sign < 0, NULL, cost_usd - held_usd), trace_id, span_id,
    {{at}}, {{reason}}, {{id}}
FROM ({{priced_calls}})
WHERE cost_usd IS NOT NULL AND (held_unpriced OR cost_usd != held_usd)
