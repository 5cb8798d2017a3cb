-- The moved entries of a call stand, with all that was corrected of them. The ledger's own of the same call are taken back, as of when they came, so that
-- no question about any time counts both; and where those had been voided, another span tells of the call: then the moved ones are taken back, too.
UNION ALL
SELECT {{opposites}}
FROM
(
    SELECT *
    FROM ledger
    WHERE {{condition}}
        AND (tenant, trace_id, span_id) GLOBAL IN (SELECT tenant, trace_id, span_id FROM told_twice)
        AND {{row}} GLOBAL NOT IN (SELECT {{row}} FROM moving)
)
WHERE {{turn}}
UNION ALL
SELECT {{opposites}}
FROM
(
    SELECT f.* REPLACE (t._last AS entered_at)
    FROM fresh AS f
    INNER JOIN told_twice AS t ON f.tenant = t.tenant AND f.trace_id = t.trace_id AND f.span_id = t.span_id
    WHERE t._stand = 0
)
WHERE {{turn}}
