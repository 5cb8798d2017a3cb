-- What cost most, and how that changed against the period of the same length before.
--
-- definition:
-- * cost_usd: sum of all entries of the period, corrections included; NULL where nothing is priced
-- * share: of the cost of all groups, 0 to 1
-- * before_usd: the same sum over the period before
-- * change_usd: cost_usd − before_usd, nothing priced counting as 0; over all groups it adds up to the change of the whole
-- * change_share: of the change of the whole; negative for what moved the other way
-- * grew_by: change_usd / before_usd; NULL for what is new
-- * calls: calls of the period
-- * calls_before: calls of the period before
-- * tokens_priced: share of the period's tokens whose calls have a cost
-- parameters:
-- * by dimensions = customer,feature: what to group by; `total` is one row
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * order choice cost|change = cost: by what came to most, or by what changed most, up or down
-- * limit count = 20: most rows
-- example: tallystick ask top-drivers --by feature,model --since 7d --param order=change
SELECT
    /*by:names*/
    group_cost AS cost_usd,
    toFloat64(group_cost) / toFloat64(sum(group_cost) OVER ()) AS share,
    group_before AS before_usd,
    ifNull(group_cost, 0) - ifNull(group_before, 0) AS change_usd,
    toFloat64(change_usd) / nullIf(toFloat64(sum(ifNull(group_cost, 0) - ifNull(group_before, 0)) OVER ()), 0) AS change_share,
    if(group_before > 0, toFloat64(change_usd) / toFloat64(group_before), NULL) AS grew_by,
    group_calls AS calls,
    group_calls_before AS calls_before,
    if(group_tokens > 0, priced_tokens / group_tokens, NULL) AS tokens_priced
FROM
(
    SELECT
        /*by:expressions*/
        sumIf(cost_usd, /*period*/) AS group_cost,
        sumIf(cost_usd, /*before*/) AS group_before,
        sumIf(calls, /*period*/) AS group_calls,
        sumIf(calls, /*before*/) AS group_calls_before,
        sumIf(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0), /*period*/) AS group_tokens,
        sumIf(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0), /*period*/ AND cost_usd IS NOT NULL) AS priced_tokens
    FROM charges
    WHERE (/*period*/ OR /*before*/) AND /*where*/
    GROUP BY ALL
)
WHERE group_calls != 0 OR group_calls_before != 0 OR isNotNull(group_cost) OR isNotNull(group_before)
ORDER BY if({order:String} = 'change', abs(change_usd), ifNull(group_cost, 0)) DESC, group_tokens DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
