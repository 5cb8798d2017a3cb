-- Goes into the FROM clause of entries `s`.
ASOF LEFT JOIN ({{list_prices}}) AS list
    ON s.provider = list.provider
    AND s.request_model = list.request_model
    AND s.response_model = list.response_model
    AND s.service_tier = list.service_tier
    AND s.started_at >= list.valid_from
