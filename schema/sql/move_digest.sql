-- How many rows there are, and sums over hashes of them: they depend on every value and on no order, and rows that are alike all count.
SELECT count(), sum(cityHash64(tuple({{columns}}))), sum(xxh3(tuple({{columns}})))
FROM {{source}}
WHERE {{condition}}
