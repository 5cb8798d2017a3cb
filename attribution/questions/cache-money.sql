-- What the providers' prompt caches saved, net of what writing to them cost, and what may have been missed.
--
-- definition:
-- * cache_read_tokens, cache_write_tokens: read from and written to the provider's cache
-- * read_share: of all input tokens, those that came from the cache
-- * saved_usd: Σ tokens read from the cache × (rate of input − rate of a cache read)
-- * write_extra_usd: Σ tokens written × (rate of that write − rate of input); 0 where writing costs what input does
-- * net_usd: saved_usd − write_extra_usd; negative where more was written than paid off
-- * missed_at_most_usd: Σ uncached text input × (rate of input − rate of a cache read), of calls long enough for a cache, of a feature and
--   model that read nothing from one in the period. An upper bound: which of these tokens were repeated isn't known, and the first
--   of them can't come from a cache
-- * tokens_rated: share of the input tokens whose rates are known; the amounts are of these alone. Rates are those by which calls were
--   first priced
-- parameters:
-- * by dimensions = feature,model: what to group by; `total` is one row
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * cacheable_from count = 1024: tokens of the shortest input that is counted as missed; OpenAI and most models of Anthropic cache from 1,024 on
-- * limit count = 100: most rows
-- example: tallystick ask cache-money --by feature,model --since 30d
WITH
    cached AS
    (
        SELECT DISTINCT tenant, feature, response_model, request_model
        FROM charges
        WHERE /*period*/ AND /*where*/ AND cache_read_tokens > 0
    ),
    calls_of_period AS
    (
        SELECT
            /*by:expressions*/
            calls,
            price_id,
            (tenant, feature, response_model, request_model) NOT IN (SELECT * FROM cached) AS uncached,
            ifNull(input_tokens, 0) AS input,
            ifNull(cache_read_tokens, 0) AS read,
            ifNull(cache_write_5m_tokens, 0) AS write_5m,
            ifNull(cache_write_1h_tokens, 0) AS write_1h,
            input + read + write_5m + write_1h AS whole,
            -- Of a call that was taken back all counts are negative.
            calls * greatest(calls * (input - ifNull(audio_input_tokens, 0) - ifNull(image_input_tokens, 0)), 0) AS text_input
        FROM charges
        WHERE /*period*/ AND /*where*/ AND calls != 0
    ),
    summed AS
    (
        SELECT
            /*by:names*/
            price_id,
            sum(read) AS all_read,
            sum(write_5m) AS all_5m,
            sum(write_1h) AS all_1h,
            sum(whole) AS all_input,
            sumIf(text_input, uncached AND abs(whole) >= {cacheable_from:UInt32}) AS uncached_input
        FROM calls_of_period
        GROUP BY ALL
    )
SELECT
    /*by:names*/
    sum(all_read) AS cache_read_tokens,
    sum(all_5m) + sum(all_1h) AS cache_write_tokens,
    if(sum(all_input) > 0, cache_read_tokens / sum(all_input), NULL) AS read_share,
    CAST(round(sum(all_read * (input_usd - cache_read_usd)), 12) AS Decimal(38, 12)) AS saved_usd,
    CAST(
        round(sum(all_5m * (cache_write_5m_usd - input_usd) + all_1h * (cache_write_1h_usd - input_usd)), 12) AS Decimal(38, 12)
    ) AS write_extra_usd,
    saved_usd - write_extra_usd AS net_usd,
    CAST(round(sum(uncached_input * greatest(input_usd - cache_read_usd, 0)), 12) AS Decimal(38, 12)) AS missed_at_most_usd,
    if(sum(all_input) > 0, sumIf(all_input, rates.price_id != '') / sum(all_input), NULL) AS tokens_rated
FROM summed
LEFT JOIN price_rates AS rates ON summed.price_id = rates.price_id
GROUP BY ALL
ORDER BY saved_usd + write_extra_usd + missed_at_most_usd DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
