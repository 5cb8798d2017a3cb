-- Which instrumentations meter the batch's processes, as all writers told, and whether that was told long ago: it's forgotten after two days.
SELECT tenant, process, instrumentation, max(told_at) < now() - INTERVAL 1 DAY AS stale
FROM instrumentations
WHERE (tenant, process) IN (SELECT tenant, process FROM staged WHERE problem = '')
GROUP BY tenant, process, instrumentation
