-- What the ledger holds of each model on each day (UTC), by price: calls, tokens by bucket, cost, and the cost of calls that began within
-- ten minutes of midnight, which a provider may count to the day before or after. Allocations are nobody's invoice, and left out.
-- Parameters: since, until (days since 1970, until exclusive).
SELECT
    toString(toDate(started_at)) AS day,
    provider,
    if(response_model != '', response_model, request_model) AS model,
    price_id,
    cost_usd IS NOT NULL AS priced,
    entry = 'trueup' AS trued_up,
    sum(calls),
    sum(ifNull(input_tokens, 0)),
    sum(ifNull(cache_read_tokens, 0)),
    sum(ifNull(cache_write_5m_tokens, 0)),
    sum(ifNull(cache_write_1h_tokens, 0)),
    sum(ifNull(output_tokens, 0)),
    sum(toDecimal128(ifNull(cost_usd, 0), 12)),
    sumIf(toDecimal128(ifNull(cost_usd, 0), 12), toHour(started_at) = 0 AND toMinute(started_at) < 10),
    sumIf(toDecimal128(ifNull(cost_usd, 0), 12), toHour(started_at) = 23 AND toMinute(started_at) >= 50)
FROM charges
WHERE entry != 'allocation' AND toDate(started_at) >= toDate({since:Int32}) AND toDate(started_at) < toDate({until:Int32})
GROUP BY ALL
ORDER BY ALL
