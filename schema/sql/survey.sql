-- What a batch holds: how many spans of each request are calls or unusable (and why), of which models, from which processes and services, and
-- when the first of them started.
-- A log beside the spans of one instrumentation counts as another: both tell of one call.
SELECT number, problem, tenant, process, if(is_log, concat(scope, ' (log)'), scope) AS instrumentation, provider, request_model, response_model, service_tier, service, count() AS spans, toDateTime(min(started_at), 'UTC') AS earliest
FROM staged
GROUP BY ALL
