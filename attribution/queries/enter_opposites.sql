-- Entries again with opposite signs. {{…}} is filled by attribution/runs.py; {{entries}} selects whole rows of the ledger.
INSERT INTO {{beside}}
SELECT * REPLACE
    (
        {{entry}} AS entry,
        -calls AS calls,
        -input_tokens AS input_tokens,
        -cache_read_tokens AS cache_read_tokens,
        -cache_write_5m_tokens AS cache_write_5m_tokens,
        -cache_write_1h_tokens AS cache_write_1h_tokens,
        -output_tokens AS output_tokens,
        -reasoning_tokens AS reasoning_tokens,
        -audio_input_tokens AS audio_input_tokens,
        -audio_output_tokens AS audio_output_tokens,
        -image_input_tokens AS image_input_tokens,
        -cost_usd AS cost_usd,
        -reported_cost_usd AS reported_cost_usd,
        {{at}} AS entered_at,
        {{reason}} AS reason,
        {{id}} AS correction
    )
FROM ({{entries}})
