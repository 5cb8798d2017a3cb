-- What a batch holds: how many spans of each request are calls or unusable (and why), of which models, from which processes.
-- A log beside the spans of one instrumentation counts as another: both tell of one call.
SELECT number, problem, tenant, process, if(is_log, concat(scope, ' (log)'), scope) AS instrumentation, provider, request_model, response_model, service_tier, count() AS spans
FROM staged
GROUP BY ALL
