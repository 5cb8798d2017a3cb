-- For whom a day's calls of each model were, and what they cost: what a true-up is shared out by. Parameters: since, until (days since
-- 1970, until exclusive).
SELECT
    toString(toDate(started_at)) AS day,
    provider,
    if(response_model != '', response_model, request_model) AS model,
    tenant,
    customer,
    feature,
    agent,
    team,
    sum(toDecimal128(ifNull(cost_usd, 0), 12)) AS cost,
    sum(ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)
        + ifNull(output_tokens, 0)) AS tokens
FROM charges
WHERE entry != 'allocation' AND toDate(started_at) >= toDate({since:Int32}) AND toDate(started_at) < toDate({until:Int32})
GROUP BY ALL
HAVING cost > 0 OR tokens > 0
ORDER BY ALL
