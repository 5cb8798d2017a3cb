-- Some hours of a rule's scope.
SELECT
    /*value*/ AS value,
    toUInt32(toUnixTimestamp(toStartOfHour(started_at))) AS hour,
    sum(cost_usd) AS cost,
    sum(/*tokens*/) AS tokens,
    sum(calls) AS n,
    sumIf(calls, status = 'error') AS errors,
    sum(ifNull(cache_read_tokens, 0)) AS cached,
    sum(ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)) AS input
FROM ledger
WHERE toUnixTimestamp(toStartOfHour(started_at)) IN /*hours*/ AND /*within*//*scope*/
GROUP BY value, hour
HAVING n > 0 OR cost != 0
