-- Columns price_id and cost_usd of a call `s` joined with its `price` (cost_join.sql); goes into the SELECT list.
--
-- Unknown counts are 0 beside known ones; a call of which neither input nor output is known has no cost, and one that the provider
-- refused (usage_source none) costs 0. Parts (audio, image, reasoning) are never more than the whole, whatever the span says.
-- The sum is exact, tokens times rates of 24 decimals, and rounded once to the ledger's 12. A million USD a call is out of its
-- range: NULL, for such a count is no count.
price.price_ids[
    (
        arrayCount(start -> start <= toUnixTimestamp64Second(s.started_at) % 86400, price.day_starts) * (length(price.above) + 1)
        + arrayCount(
            size -> size < ifNull(s.input_tokens, 0) + ifNull(s.cache_read_tokens, 0)
                + ifNull(s.cache_write_5m_tokens, 0) + ifNull(s.cache_write_1h_tokens, 0),
            price.above)
        AS price_tier
    ) + 1
] AS price_id,
multiIf(
    s.usage_source = 'none', toDecimal64(0, 12),
    empty(price.price_ids) OR (s.input_tokens IS NULL AND s.output_tokens IS NULL), NULL,
    accurateCastOrNull(
        round(
            arraySum(
                (tokens, rate) -> tokens * rate,
                [
                    greatest(
                        ifNull(s.input_tokens, 0) - ifNull(s.audio_input_tokens, 0) - ifNull(s.image_input_tokens, 0), 0),
                    ifNull(s.cache_read_tokens, 0),
                    ifNull(s.cache_write_5m_tokens, 0),
                    ifNull(s.cache_write_1h_tokens, 0),
                    greatest(
                        ifNull(s.output_tokens, 0) - ifNull(s.reasoning_tokens, 0) - ifNull(s.audio_output_tokens, 0), 0),
                    least(ifNull(s.reasoning_tokens, 0), ifNull(s.output_tokens, 0)),
                    least(ifNull(s.audio_input_tokens, 0), ifNull(s.input_tokens, 0)),
                    least(
                        ifNull(s.audio_output_tokens, 0),
                        greatest(ifNull(s.output_tokens, 0) - ifNull(s.reasoning_tokens, 0), 0)),
                    least(
                        ifNull(s.image_input_tokens, 0),
                        greatest(ifNull(s.input_tokens, 0) - ifNull(s.audio_input_tokens, 0), 0)),
                    1
                ],
                arrayResize(arraySlice(price.rates, price_tier * 10 + 1, 10), 10)),
            12),
        'Decimal(18, 12)')
) AS cost_usd
