-- Calls that stand, and what the ledger holds for each after corrections. A correction has the time and the dimensions of its call, so
-- that one condition finds both. {{…}} is filled by attribution/priced_calls.py.
SELECT
    l.*,
    ifNull(l.entered_usd, 0) + ifNull(h.net_usd, 0) AS held_usd,
    isNull(l.entered_usd) + h.net_unpriced > 0 AS held_unpriced
FROM
(
    SELECT {{columns}}, cost_usd AS entered_usd
    FROM ledger
    WHERE entry = 'call' AND {{condition}}
) AS l
LEFT JOIN
(
    SELECT tenant, trace_id, span_id, sum(calls) AS net_calls, sum(cost_usd) AS net_usd, sumIf(calls, cost_usd IS NULL) AS net_unpriced
    FROM ledger
    WHERE entry IN ('void', 'reprice') AND {{condition}}
    GROUP BY tenant, trace_id, span_id
) AS h USING (tenant, trace_id, span_id)
WHERE h.net_calls = 0
