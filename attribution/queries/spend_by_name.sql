-- Calls of a period by what spans say of their model, with how much of it is priced. {{condition}} is filled by attribution/reprice.py.
SELECT
    provider,
    request_model,
    response_model,
    service_tier,
    sum(calls) AS all_calls,
    sumIf(calls, cost_usd IS NOT NULL) AS priced_calls,
    ifNull(sum(input_tokens), 0) + ifNull(sum(cache_read_tokens), 0) + ifNull(sum(cache_write_5m_tokens), 0)
        + ifNull(sum(cache_write_1h_tokens), 0) + ifNull(sum(output_tokens), 0) AS tokens,
    ifNull(sumIf(input_tokens, cost_usd IS NOT NULL), 0) + ifNull(sumIf(cache_read_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), 0) + ifNull(sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(output_tokens, cost_usd IS NOT NULL), 0) AS priced_tokens,
    ifNull(sum(cost_usd), 0) AS cost
FROM ledger
WHERE entry IN ('call', 'void', 'reprice') AND {{condition}}
GROUP BY provider, request_model, response_model, service_tier
