-- All entries of the calls in {{calls}}, those that corrected them included. {{period}} is filled by attribution/voids.py.
SELECT *
FROM ledger
WHERE {{period}} AND (tenant, trace_id, span_id) IN (SELECT tenant, unhex(trace_id), unhex(span_id) FROM {{calls}})
