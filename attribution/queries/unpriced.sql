-- Calls without a cost since a moment, by model: those whose model has no price, and those whose tokens nobody reported.
SELECT
    provider,
    model,
    why,
    model_calls AS calls,
    model_tokens AS tokens,
    first_seen,
    last_seen
FROM
(
    SELECT
        provider,
        if(response_model != '', response_model, request_model) AS model,
        if(isNull(input_tokens) AND isNull(output_tokens), 'usage unknown', 'no price') AS why,
        sum(calls) AS model_calls,
        sum(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)
        ) AS model_tokens,
        min(started_at) AS first_seen,
        max(started_at) AS last_seen
    FROM charges
    WHERE cost_usd IS NULL AND started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    GROUP BY provider, model, why
    HAVING model_calls != 0
)
ORDER BY tokens DESC, calls DESC, provider, model, why
