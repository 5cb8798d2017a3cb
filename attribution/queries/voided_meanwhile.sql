-- Entries of a run under way whose call the writer has voided since {{began}} (ms since 1970). {{…}} is filled by attribution/runs.py.
SELECT *
FROM {{beside}}
WHERE (tenant, trace_id, span_id) IN
(
    SELECT tenant, trace_id, span_id
    FROM ledger
    WHERE entry = 'void'
        AND correction = ''
        AND entered_at >= fromUnixTimestamp64Milli(toInt64({{began}}), 'UTC')
        AND started_at >= (SELECT min(started_at) FROM {{beside}})
        AND started_at <= (SELECT max(started_at) FROM {{beside}})
)
