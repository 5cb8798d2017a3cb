-- The calls that stand, each with what the ledger holds for it after corrections (`held_usd`, and `held_unpriced`: 1 if it has no
-- price; see held_corrected.sql) and with what it costs under a price book (`price_id`, `cost_usd`, NULL if it has none there). {{…}} is
-- filled by attribution/priced_calls.py.
SELECT
    s.*,
    {{cost}}
FROM ({{held}}) AS s
{{join}}
