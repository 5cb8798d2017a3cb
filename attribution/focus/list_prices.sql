-- The public list's prices of models whose price the user's file set: rows as table `prices` has them. Parameter: list_prices (JSON).
SELECT
    '~' AS book,
    row.1 AS provider,
    row.2 AS request_model,
    row.3 AS response_model,
    row.4 AS service_tier,
    fromUnixTimestamp64Nano(row.5, 'UTC') AS valid_from,
    row.6 AS price_ids,
    row.7 AS rates,
    row.8 AS above,
    row.9 AS day_starts
FROM
(
    SELECT
        arrayJoin(
            JSONExtract(
                {list_prices:String},
                'Array(Tuple(String, String, String, String, Int64, Array(String), Array(Decimal(38, 24)), Array(UInt64), Array(UInt32)))'))
        AS row
)
