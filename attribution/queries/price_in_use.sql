-- Whether a price id stands in the charges that the reader may see: a row, or none. Parameter: price_id.
SELECT 1
FROM charges
WHERE price_id = {price_id:String}
LIMIT 1
