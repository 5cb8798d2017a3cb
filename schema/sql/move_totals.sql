-- What a ledger comes to, by month and tenant: entries, calls, tokens by bucket, cost, and the sums of move_digest.sql.
SELECT
    toString(toYYYYMM(started_at)) AS month, tenant,
    count(), sum(calls),
    sum(input_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(output_tokens), sum(reasoning_tokens),
    sum(audio_input_tokens), sum(audio_output_tokens), sum(image_input_tokens),
    sum(cost_usd),
    sum(cityHash64(tuple({{columns}}))), sum(xxh3(tuple({{columns}})))
FROM ledger
WHERE {{condition}}
GROUP BY month, tenant
ORDER BY month, tenant
