-- Rates of every price id, of whatever book: ten, in the order of table `prices`.
SELECT id, argMin(arraySlice(rates, (place - 1) * 10 + 1, 10), book) AS rates
FROM (SELECT book, rates, id, place FROM {{prices}} ARRAY JOIN price_ids AS id, arrayEnumerate(price_ids) AS place)
GROUP BY id
