-- The entries of a run in a period, but for those of calls that don't stand as the run left them: {{calls}} is 1 of what was repriced, 0 of
-- what was voided. Entries that are of no call have no ids, and 0. {{…}} is filled by attribution/corrections.py.
SELECT *
FROM ledger
WHERE correction = {{id}}
    AND {{period}}
    AND (tenant, trace_id, span_id) IN
    (
        SELECT tenant, trace_id, span_id
        FROM ledger
        WHERE {{period}} AND (tenant, trace_id, span_id) IN (SELECT tenant, trace_id, span_id FROM ledger WHERE correction = {{id}} AND {{period}})
        GROUP BY tenant, trace_id, span_id
        HAVING sum(calls) = {{calls}}
    )
