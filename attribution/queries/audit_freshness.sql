-- When the newest call of the last week that stands in the ledger started.
SELECT maxOrNull(started_at) AS newest FROM ledger WHERE entry = 'call' AND started_at > now() - INTERVAL 7 DAY
