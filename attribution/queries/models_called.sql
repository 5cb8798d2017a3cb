-- Models as spans name them, of calls of a period, the most called first.
SELECT provider, request_model, response_model, service_tier
FROM charges
WHERE entry = 'call' AND /*conditions*/
GROUP BY ALL
ORDER BY count() DESC, provider, request_model, response_model, service_tier
LIMIT {limit:UInt64}
