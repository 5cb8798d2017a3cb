-- The calls that stand, each with what the ledger holds for it after corrections (`held_usd`, and `held_unpriced`: 1 if it has no
-- price) and with what it costs under a price book (`price_id`, `cost_usd`, NULL if it has none there). {{…}} is filled by
-- attribution/priced_calls.py; a correction has the time and the dimensions of its call, so that one condition finds both.
SELECT
    s.*,
    {{cost}}
FROM
(
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
) AS s
{{join}}
