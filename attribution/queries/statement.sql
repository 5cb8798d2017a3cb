-- What a statement tells of, by /*by*/: one row for each and whom the statement is for.
SELECT
    /*who*/ AS who,
    /*by*/
    count() AS entries,
    sum(calls) AS n,
    sum(ifNull(input_tokens, 0)) AS input,
    sum(ifNull(cache_read_tokens, 0)) AS cache_read,
    sum(ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)) AS cache_write,
    sum(ifNull(output_tokens, 0)) AS output,
    sum(cost_usd) AS cost,
    sumIf(calls, cost_usd IS NOT NULL) AS priced_calls,
    sumIf(
        ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
        + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0),
        cost_usd IS NOT NULL
    ) AS priced_tokens
FROM charges
WHERE /*conditions*/
GROUP BY ALL
