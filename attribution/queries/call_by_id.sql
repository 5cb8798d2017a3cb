-- Whose a call is, when it began, and whether it stands (1) or was voided (0). {{…}} is filled by attribution/voids.py.
SELECT tenant, toUnixTimestamp64Nano(any(started_at)) AS begin_ns, sum(calls) AS standing
FROM ledger
WHERE trace_id = unhex({{trace}}) AND span_id = unhex({{span}})
GROUP BY tenant
ORDER BY tenant
