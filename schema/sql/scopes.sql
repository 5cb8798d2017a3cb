-- Which instrumentations metered which process lately: what a writer knows at its start.
SELECT DISTINCT tenant, process, scope FROM ledger WHERE started_at >= now() - INTERVAL 1 HOUR
