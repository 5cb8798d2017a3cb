-- Calls that are about to be moved, and of which the ledger was told by a sender as well: how many entries of its own stand of them (1 or, voided, 0).
CREATE TEMPORARY TABLE told_twice ENGINE = Memory AS
SELECT tenant, trace_id, span_id, sum(calls) AS _stand, max(entered_at) AS _last
FROM ledger
WHERE {{condition}}
    AND (tenant, trace_id, span_id) GLOBAL IN (SELECT tenant, trace_id, span_id FROM fresh WHERE entry = 'call')
    AND {{row}} GLOBAL NOT IN (SELECT {{row}} FROM moving)
GROUP BY tenant, trace_id, span_id
HAVING countIf(entry = 'call') > 0
