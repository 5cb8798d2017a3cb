-- Calls of the ledger, and their voids, that a batch of {{tenants}} may repeat or tell of again: of the same trace, with the same answer, or of
-- a process that meters in two ways ({{processes}}). Two spans of one call start within two minutes of each other; asked minute by minute, a
-- batch with a span of last year doesn't have the year read.
-- Under full load those minutes hold millions of calls, of which next to none is meant. So they are told by their keys alone, short keys first
-- (the engine reads the columns of a condition where those before it held); what the primary index has narrowed down already is compared again
-- of these few only. Keys of answers are short, two answers may share one: without the second condition all columns of its block would be read.
SELECT
    entry, calls, tenant, trace_id, span_id, parent_span_id, response_id, response_key, process, service, scope, layer, is_log, started_at, duration_ns,
    provider, request_model, response_model, service_tier, cache_hit, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens,
    output_tokens, reasoning_tokens, usage_source, customer, feature, agent, team, user, session
FROM ledger
PREWHERE (trace_id IN (SELECT trace_id FROM staged)
        OR response_key IN (SELECT response_key FROM staged WHERE response_key != 0)
        {{processes}})
    AND (trace_id IN (SELECT trace_id FROM staged)
        OR cityHash64(response_id) IN (SELECT cityHash64(response_id) FROM staged WHERE response_key != 0)
        {{processes}})
WHERE tenant IN ({{tenants}})
    AND toStartOfMinute(started_at) IN
    (
        SELECT arrayJoin(arrayMap(i -> addMinutes(minute, i), [-2, -1, 0, 1, 2]))
        FROM (SELECT DISTINCT toStartOfMinute(started_at) AS minute FROM staged WHERE problem = '')
    )
