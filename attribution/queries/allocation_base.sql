-- What an amount can be shared out by: cost, tokens and calls of a period by day, tenant and /*names*/, with what of them is priced.
-- Allocations are no base of others, unless /*entries*/ says so.
SELECT
    toDate(started_at) AS day,
    tenant,
    /*expressions*/
    sum(cost_usd) AS cost,
    sum(
        ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
        + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)
    ) AS tokens,
    sum(calls) AS n,
    sumIf(calls, cost_usd IS NOT NULL) AS priced_calls
FROM charges
WHERE /*conditions*/ AND /*entries*/
GROUP BY ALL
ORDER BY day, tenant/*order*/
