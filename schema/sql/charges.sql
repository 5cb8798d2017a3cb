-- What users query: a stable contract over the ledger. Documented in docs/charges.md.
CREATE OR REPLACE VIEW charges AS
SELECT
    entry,
    calls,
    tenant, customer, feature, agent, team, user, session, service, environment, tags,
    provider, request_model, response_model, operation, service_tier,
    streamed, status, error_type, cache_hit,
    input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
    audio_input_tokens, audio_output_tokens, image_input_tokens, usage_source,
    started_at,
    addNanoseconds(started_at, duration_ns) AS ended_at,
    ttft_ns / 1e6 AS ttft_ms,
    ttft_kind,
    -- Time per output token after the first: (end to end - TTFT) / (output tokens - 1), as vLLM defines it.
    if(output_tokens > 1 AND duration_ns >= ttft_ns, (duration_ns - ttft_ns) / (output_tokens - 1) / 1e6, NULL) AS tpot_ms,
    price_id, cost_usd, reported_cost_usd,
    lower(hex(trace_id)) AS trace_id,
    lower(hex(span_id)) AS span_id,
    response_id,
    entered_at,
    reason,
    correction
FROM ledger
