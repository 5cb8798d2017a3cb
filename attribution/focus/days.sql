-- What the ledger holds of each day of a period: how many entries, when the last was made, what they come to, and how much is unpriced.
SELECT
    toString(toDate(s.started_at)) AS day,
    count() AS entries,
    toString(max(s.entered_at)) AS last_entered_at,
    toString(toDecimal128(ifNull(sum(s.cost_usd), 0), 12)) AS cost_usd,
    sum(
        ifNull(s.input_tokens, 0) + ifNull(s.cache_read_tokens, 0) + ifNull(s.cache_write_5m_tokens, 0) + ifNull(s.cache_write_1h_tokens, 0)
        + ifNull(s.output_tokens, 0)
    ) AS tokens,
    sumIf(
        ifNull(s.input_tokens, 0) + ifNull(s.cache_read_tokens, 0) + ifNull(s.cache_write_5m_tokens, 0) + ifNull(s.cache_write_1h_tokens, 0)
        + ifNull(s.output_tokens, 0),
        s.cost_usd IS NULL
    ) AS unpriced_tokens
FROM ledger AS s
WHERE {{where}}
GROUP BY toDate(s.started_at)
ORDER BY day
