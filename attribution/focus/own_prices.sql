-- Models of a period, as spans name them, whose price the user's file set or changed, or a probe measured.
SELECT DISTINCT provider, request_model, response_model, service_tier
FROM ledger AS s
WHERE {{where}} AND s.calls != 0 AND match(s.price_id, '^[^,]*(file|probe)@')
