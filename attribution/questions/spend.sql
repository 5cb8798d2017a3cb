-- What was spent, by any dimensions, the dearest first.
--
-- definition:
-- * calls: calls, without those that were entered twice
-- * tokens: input, read from and written to the provider's cache, output; unknown counts are left out
-- * cost_usd: sum of all entries, corrections included; NULL where nothing is priced
-- * share: of the cost of all groups, 0 to 1
-- * calls_priced: share of the calls that have a cost
-- * tokens_priced: share of the tokens of calls that have a cost
-- parameters:
-- * by dimensions = customer: what to group by; `total` is one row
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask spend --by customer,feature --since 30d
SELECT
    /*by:names*/
    group_calls AS calls,
    group_tokens AS tokens,
    group_cost AS cost_usd,
    toFloat64(group_cost) / toFloat64(sum(group_cost) OVER ()) AS share,
    if(group_calls > 0, priced_calls / group_calls, NULL) AS calls_priced,
    if(group_tokens > 0, priced_tokens / group_tokens, NULL) AS tokens_priced
FROM
(
    SELECT
        /*by:expressions*/
        sum(calls) AS group_calls,
        sum(cost_usd) AS group_cost,
        ifNull(sum(input_tokens), 0) + ifNull(sum(cache_read_tokens), 0) + ifNull(sum(cache_write_5m_tokens), 0)
        + ifNull(sum(cache_write_1h_tokens), 0) + ifNull(sum(output_tokens), 0) AS group_tokens,
        sumIf(calls, cost_usd IS NOT NULL) AS priced_calls,
        ifNull(sumIf(input_tokens, cost_usd IS NOT NULL), 0) + ifNull(sumIf(cache_read_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), 0) + ifNull(sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(output_tokens, cost_usd IS NOT NULL), 0) AS priced_tokens
    FROM charges
    WHERE /*period*/ AND /*where*/
    GROUP BY ALL
)
WHERE group_calls != 0 OR group_tokens != 0 OR isNotNull(group_cost)
ORDER BY group_cost DESC NULLS LAST, group_tokens DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
