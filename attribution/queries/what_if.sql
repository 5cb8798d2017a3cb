-- What a period cost, and what its calls would have cost at other prices: one row a group, the largest difference first, and beside
-- each the totals of all groups. `prices` stands for the table of that name: /*cost*/ and /*join*/ are schema/sql/cost.sql and
-- cost_join.sql, as calls are priced when they are entered. Corrected prices (reprice) belong to what it cost; allocations and
-- trueups are no calls and are the same on both sides.
WITH prices AS
(
    SELECT
        '' AS book,
        row.1 AS provider,
        row.2 AS request_model,
        row.3 AS response_model,
        row.4 AS service_tier,
        fromUnixTimestamp64Nano(row.5, 'UTC') AS valid_from,
        row.6 AS price_ids,
        row.7 AS rates,
        row.8 AS above,
        row.9 AS day_starts
    FROM
    (
        SELECT
            arrayJoin(
                JSONExtract(
                    {prices:String},
                    'Array(Tuple(String, String, String, String, Int64, Array(String), Array(Decimal(38, 24)), Array(UInt64), Array(UInt32)))'))
            AS row
    )
)
SELECT
    /*dimensions*/
    group_calls AS calls,
    group_tokens AS tokens,
    group_is AS cost_usd,
    group_if AS as_if_usd,
    group_if - group_is AS difference_usd,
    group_priced_calls AS priced_calls,
    group_if_priced_calls AS as_if_priced_calls,
    group_priced_tokens AS priced_tokens,
    group_if_priced_tokens AS as_if_priced_tokens,
    count() OVER () AS all_groups,
    sum(group_calls) OVER () AS all_calls,
    sum(group_tokens) OVER () AS all_tokens,
    sum(group_is) OVER () AS all_cost_usd,
    sum(group_if) OVER () AS all_as_if_usd,
    all_as_if_usd - all_cost_usd AS all_difference_usd,
    sum(group_priced_calls) OVER () AS all_priced_calls,
    sum(group_if_priced_calls) OVER () AS all_as_if_priced_calls,
    sum(group_priced_tokens) OVER () AS all_priced_tokens,
    sum(group_if_priced_tokens) OVER () AS all_as_if_priced_tokens
FROM
(
    SELECT
        /*names*/
        sum(n) AS group_calls,
        sum(tokens) AS group_tokens,
        sum(is_usd) AS group_is,
        sum(multiIf(entry IN ('call', 'void'), n * cost_usd, entry IN ('allocation', 'trueup'), is_usd, NULL)) AS group_if,
        sumIf(n, is_usd IS NOT NULL) AS group_priced_calls,
        sumIf(n, cost_usd IS NOT NULL) AS group_if_priced_calls,
        sumIf(tokens, is_usd IS NOT NULL) AS group_priced_tokens,
        sumIf(tokens, cost_usd IS NOT NULL) AS group_if_priced_tokens
    FROM
    (
        SELECT /*names*/ s.entry AS entry, s.n AS n, s.tokens AS tokens, s.is_usd AS is_usd, /*cost*/
        FROM
        (
            SELECT
                /*expressions*/
                entry,
                calls AS n,
                cost_usd AS is_usd,
                ifNull(charges.input_tokens, 0) + ifNull(charges.cache_read_tokens, 0) + ifNull(charges.cache_write_5m_tokens, 0)
                + ifNull(charges.cache_write_1h_tokens, 0) + ifNull(charges.output_tokens, 0) AS tokens,
                if(calls < 0, -1, 1) AS sign,
                provider,
                request_model,
                response_model,
                service_tier,
                usage_source,
                started_at,
                /*counts*/
            FROM charges
            WHERE /*conditions*/
        ) AS s
        /*join*/
    )
    GROUP BY ALL
)
WHERE group_calls != 0 OR group_tokens != 0 OR isNotNull(group_is) OR isNotNull(group_if)
ORDER BY abs(ifNull(difference_usd, 0)) DESC, ifNull(cost_usd, 0) DESC, /*order*/
LIMIT {limit:UInt64}
