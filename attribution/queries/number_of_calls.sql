-- {{condition}} is filled by attribution/voids.py.
SELECT count()
FROM ledger
WHERE entry = 'call' AND {{condition}}
