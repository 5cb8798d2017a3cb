-- held_corrected.sql where nothing was corrected: no join is needed. {{…}} is filled by attribution/priced_calls.py.
SELECT
    {{columns}},
    cost_usd AS entered_usd,
    ifNull(cost_usd, 0) AS held_usd,
    isNull(cost_usd) AS held_unpriced
FROM ledger
WHERE entry = 'call' AND {{condition}}
