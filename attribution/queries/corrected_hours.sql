-- How many corrections the ledger holds for each hour (seconds since 1970). {{condition}} is filled by attribution/runs.py.
SELECT toUnixTimestamp(toStartOfHour(started_at)) AS hour, count()
FROM ledger
WHERE entry != 'call' AND {{condition}}
GROUP BY hour
ORDER BY hour
