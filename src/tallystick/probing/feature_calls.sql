-- Calls of a feature whose tokens are known, in the order of their times. /*some*/ says which, where there are more than are wanted: the
-- first of the period, or those that a hash of their ids draws, which is an even sample and always the same. Calls that were entered twice
-- and taken back aren't there.
SELECT
    toUnixTimestamp64Nano(started_at) AS at_ns,
    input_tokens,
    coalesce(cache_read_tokens, 0) AS cached_tokens,
    coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0) AS written_tokens,
    output_tokens
FROM
(
    SELECT *
    FROM charges
    WHERE entry = 'call' AND /*conditions*/ AND /*known*/ AND /*standing*/
    ORDER BY /*some*/, trace_id, span_id
    LIMIT {most:UInt64}
)
ORDER BY at_ns, trace_id, span_id
