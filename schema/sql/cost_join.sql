-- The price that held when a call of the staging table `s` started, as `price`; goes into its FROM clause. Parameter: book.
-- A call whose model has no price, or only later ones, meets an empty row. Rows that were written twice make no difference.
ASOF LEFT JOIN
(
    SELECT provider, request_model, response_model, service_tier, valid_from, price_ids, rates, above, day_starts
    FROM prices
    WHERE book = {book:String}
) AS price
    ON s.provider = price.provider
    AND s.request_model = price.request_model
    AND s.response_model = price.response_model
    AND s.service_tier = price.service_tier
    AND s.started_at >= price.valid_from
