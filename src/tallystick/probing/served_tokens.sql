-- Tokens of a model's calls, as asked for or as answered, corrections included. Answers from a cache of the application reached no engine.
SELECT
    sum(coalesce(input_tokens, 0) + coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0)) AS input,
    sum(coalesce(cache_read_tokens, 0)) AS cache_read,
    sum(coalesce(output_tokens, 0)) AS output
FROM charges
WHERE /*conditions*/ AND {model:String} IN (request_model, response_model) AND cache_hit = ''
