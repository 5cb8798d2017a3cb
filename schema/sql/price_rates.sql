-- What each price id of the ledger charges for a token and for a call, in USD. A tenant sees prices of its own charges only: others say
-- which models are called here, and on what terms. Documented in docs/prices.md.
CREATE OR REPLACE VIEW price_rates AS
SELECT
    price_id,
    any(rate[1]) AS input_usd,
    any(rate[2]) AS cache_read_usd,
    any(rate[3]) AS cache_write_5m_usd,
    any(rate[4]) AS cache_write_1h_usd,
    any(rate[5]) AS output_usd,
    any(rate[6]) AS reasoning_usd,
    any(rate[7]) AS audio_input_usd,
    any(rate[8]) AS audio_output_usd,
    any(rate[9]) AS image_input_usd,
    any(rate[10]) AS request_usd
FROM
(
    SELECT price_id, arraySlice(rates, (at - 1) * 10 + 1, 10) AS rate
    FROM prices
    ARRAY JOIN price_ids AS price_id, arrayEnumerate(price_ids) AS at
    WHERE price_id IN (SELECT price_id FROM ledger)
)
GROUP BY price_id
