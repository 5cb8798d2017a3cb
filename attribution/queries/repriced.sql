-- What a repricing under way changes: in all, then by model, customer and day. A call that is priced for the first time has two entries,
-- of which one has calls 1.
SELECT
    multiIf(grouping(model) = 0, 'model', grouping(who) = 0, 'customer', grouping(day) = 0, 'day', '') AS by,
    multiIf(by = 'model', model, by = 'customer', toString(who), by = 'day', toString(day), '') AS value,
    countIf(calls >= 0) AS changed,
    countIf(calls > 0) AS newly_priced,
    ifNull(sumIf(
        ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)
            + ifNull(output_tokens, 0),
        calls > 0), 0) AS newly_priced_tokens,
    sum(cost_usd) AS difference_usd
FROM (SELECT *, if(response_model != '', response_model, request_model) AS model, customer AS who, toDate(started_at) AS day FROM {{beside}})
GROUP BY GROUPING SETS ((), (model), (who), (day))
ORDER BY by, abs(difference_usd) DESC, value
