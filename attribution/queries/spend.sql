-- What was spent in a period, by any dimensions: one row a group, the dearest first, and beside each the totals of all groups.
-- Grouping by customer, feature, agent and team with a period of whole days is answered by the ledger's projection `spend`.
SELECT
    /*dimensions*/
    group_calls AS calls,
    group_input AS input_tokens,
    group_cache_read AS cache_read_tokens,
    group_cache_write AS cache_write_tokens,
    group_output AS output_tokens,
    group_cost AS cost_usd,
    group_priced_calls AS priced_calls,
    group_tokens AS tokens,
    group_priced_tokens AS priced_tokens,
    count() OVER () AS all_groups,
    sum(group_calls) OVER () AS all_calls,
    sum(group_input) OVER () AS all_input_tokens,
    sum(group_cache_read) OVER () AS all_cache_read_tokens,
    sum(group_cache_write) OVER () AS all_cache_write_tokens,
    sum(group_output) OVER () AS all_output_tokens,
    sum(group_cost) OVER () AS all_cost_usd,
    sum(group_priced_calls) OVER () AS all_priced_calls,
    sum(group_tokens) OVER () AS all_tokens,
    sum(group_priced_tokens) OVER () AS all_priced_tokens
FROM
(
    SELECT
        /*expressions*/
        sum(calls) AS group_calls,
        sum(input_tokens) AS group_input,
        sum(cache_read_tokens) AS group_cache_read,
        if(
            isNull(sum(cache_write_5m_tokens)) AND isNull(sum(cache_write_1h_tokens)),
            NULL,
            ifNull(sum(cache_write_5m_tokens), 0) + ifNull(sum(cache_write_1h_tokens), 0)
        ) AS group_cache_write,
        sum(output_tokens) AS group_output,
        sum(cost_usd) AS group_cost,
        sumIf(calls, cost_usd IS NOT NULL) AS group_priced_calls,
        ifNull(group_input, 0) + ifNull(group_cache_read, 0) + ifNull(group_cache_write, 0) + ifNull(group_output, 0) AS group_tokens,
        ifNull(sumIf(input_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(cache_read_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL), 0)
        + ifNull(sumIf(output_tokens, cost_usd IS NOT NULL), 0) AS group_priced_tokens
    FROM charges
    WHERE /*conditions*/
    GROUP BY ALL
)
-- Without dimensions there is one group even of nothing.
WHERE group_calls != 0 OR group_tokens != 0 OR isNotNull(group_cost)
ORDER BY /*order*/
LIMIT {limit:UInt64} OFFSET {offset:UInt64}
