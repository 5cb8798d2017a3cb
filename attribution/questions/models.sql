-- Which models are used where, since when, and what they come to.
--
-- definition:
-- * calls: calls, without those that were entered twice
-- * tokens: input, read from and written to the provider's cache, output; unknown counts are left out
-- * cost_usd: sum of all entries, corrections included; NULL where nothing is priced
-- * share: of the cost of the whole period, 0 to 1
-- * usd_per_call: cost_usd / the calls that have a cost
-- * calls_priced: share of the calls that have a cost, 0 to 1
-- * failed: share of the calls that ended in an error, 0 to 1
-- * first_seen, last_seen: when the first and the last of these calls began, within the period
-- parameters:
-- * by dimensions = provider,model,feature: what to group by; `model` is the one that answered, else the one that was asked for
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask models --by model,feature,environment --since 90d
SELECT
    /*by:names*/
    group_calls AS calls,
    group_tokens AS tokens,
    group_cost AS cost_usd,
    toFloat64(group_cost) / nullIf(toFloat64(sum(group_cost) OVER ()), 0) AS share,
    if(priced_calls > 0, round(group_cost / priced_calls, 12), NULL) AS usd_per_call,
    priced_calls / group_calls AS calls_priced,
    failed_calls / group_calls AS failed,
    first_seen,
    last_seen
FROM
(
    SELECT
        /*by:expressions*/
        sum(calls) AS group_calls,
        sum(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)) AS group_tokens,
        sum(cost_usd) AS group_cost,
        sumIf(calls, cost_usd IS NOT NULL) AS priced_calls,
        sumIf(calls, status = 'error') AS failed_calls,
        min(started_at) AS first_seen,
        max(started_at) AS last_seen
    FROM charges
    WHERE /*period*/ AND /*where*/
    GROUP BY ALL
    HAVING group_calls > 0
)
ORDER BY cost_usd DESC NULLS LAST, tokens DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
