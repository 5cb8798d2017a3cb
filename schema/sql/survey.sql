-- What a batch holds: how many spans of each request are calls or unusable (and why), of which models, from which processes.
SELECT number, problem, tenant, process, scope, provider, request_model, response_model, service_tier, count() AS spans
FROM work.staged
GROUP BY ALL
