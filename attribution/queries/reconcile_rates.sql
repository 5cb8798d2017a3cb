-- USD a token by bucket (input, cache read, cache write 5 min, 1 h, output) of price ids. Parameter: price_ids.
SELECT
    wanted,
    any(arraySlice(rates, (indexOf(price_ids, wanted) - 1) * 10 + 1, 5))
FROM prices
ARRAY JOIN arrayIntersect(price_ids, {price_ids:Array(String)}) AS wanted
GROUP BY wanted
