-- The price that a price id of the ledger stands for, of whatever book. Parameter: price_id.
SELECT * FROM prices WHERE has(price_ids, {price_id:String}) LIMIT 1
