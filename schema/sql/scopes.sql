-- Which instrumentations metered which process lately: what a writer knows at its start.
SELECT DISTINCT tenant, process, if(is_log, concat(scope, ' (log)'), scope) AS instrumentation FROM ledger WHERE started_at >= now() - INTERVAL 1 HOUR
