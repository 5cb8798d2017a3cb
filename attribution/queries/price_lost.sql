-- How many calls are priced in the ledger and have no price any more. {{…}} is filled by attribution/reprice.py.
SELECT count() FROM ({{priced_calls}}) WHERE cost_usd IS NULL AND NOT held_unpriced
