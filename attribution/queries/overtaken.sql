-- One of {{later}} runs that has corrected calls of a run in a period, or ''. {{…}} is filled by attribution/corrections.py.
SELECT any(correction)
FROM ledger
WHERE correction IN ({{later}})
    AND {{period}}
    AND (tenant, trace_id, span_id) IN (SELECT tenant, trace_id, span_id FROM ledger WHERE correction = {{id}} AND {{period}})
