-- What a unit costs: a call, a session, a customer, a thousand completions, a million tokens; by any dimensions.
--
-- definition:
-- * cost_usd: sum of all entries, corrections and shared cost included; NULL where nothing is priced
-- * calls: calls that have a cost
-- * sessions, customers: that have a call with a cost
-- * per_call_usd: cost_usd / calls
-- * per_session_usd: cost of what belongs to a session / sessions
-- * per_customer_usd: cost of what belongs to a customer / customers
-- * per_1000_completions_usd: 1,000 × cost_usd / calls with a cost that ended well (status ok): what failed is paid for by what didn't
-- * per_million_tokens_usd: 1,000,000 × cost_usd / tokens of calls with a cost
-- * calls_priced: share of all calls that have a cost, to which these figures are limited
-- parameters:
-- * by dimensions = feature: what to group by; `total` is one row
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask unit-costs --by feature,model --since 30d
SELECT
    /*by:names*/
    group_cost AS cost_usd,
    priced_calls AS calls,
    group_sessions AS sessions,
    group_customers AS customers,
    group_cost / nullIf(priced_calls, 0) AS per_call_usd,
    session_cost / nullIf(group_sessions, 0) AS per_session_usd,
    customer_cost / nullIf(group_customers, 0) AS per_customer_usd,
    1000 * group_cost / nullIf(completions, 0) AS per_1000_completions_usd,
    1000000 * group_cost / nullIf(priced_tokens, 0) AS per_million_tokens_usd,
    if(all_calls > 0, priced_calls / all_calls, NULL) AS calls_priced
FROM
(
    SELECT
        /*by:expressions*/
        sum(cost_usd) AS group_cost,
        sumIf(cost_usd, session != '') AS session_cost,
        sumIf(cost_usd, customer != '') AS customer_cost,
        sum(calls) AS all_calls,
        sumIf(calls, cost_usd IS NOT NULL) AS priced_calls,
        sumIf(calls, cost_usd IS NOT NULL AND status = 'ok') AS completions,
        uniqExactIf(sipHash64(tenant, session), session != '' AND calls > 0 AND cost_usd IS NOT NULL) AS group_sessions,
        uniqExactIf(sipHash64(tenant, customer), customer != '' AND calls > 0 AND cost_usd IS NOT NULL) AS group_customers,
        sumIf(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0), cost_usd IS NOT NULL) AS priced_tokens
    FROM charges
    WHERE /*period*/ AND /*where*/
    GROUP BY ALL
)
WHERE all_calls != 0 OR isNotNull(group_cost)
ORDER BY group_cost DESC NULLS LAST, all_calls DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
