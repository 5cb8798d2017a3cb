-- What a price id of the ledger stands for, of whatever book, in USD for a million tokens and for a call. Parameter: price_id.
SELECT
    price_id,
    price_key AS model,
    valid_from,
    1000000 * rates[first + 1] AS input_usd_per_million,
    1000000 * rates[first + 2] AS cache_read_usd_per_million,
    1000000 * rates[first + 3] AS cache_write_5m_usd_per_million,
    1000000 * rates[first + 4] AS cache_write_1h_usd_per_million,
    1000000 * rates[first + 5] AS output_usd_per_million,
    1000000 * rates[first + 6] AS reasoning_usd_per_million,
    1000000 * rates[first + 7] AS audio_input_usd_per_million,
    1000000 * rates[first + 8] AS audio_output_usd_per_million,
    1000000 * rates[first + 9] AS image_input_usd_per_million,
    rates[first + 10] AS request_usd,
    source,
    url,
    note,
    book
FROM
(
    SELECT {price_id:String} AS price_id, (indexOf(price_ids, price_id) - 1) * 10 AS first, *
    FROM prices
    WHERE has(price_ids, price_id)
    LIMIT 1
)
