-- Entries of a period as FOCUS rows: one for each charge period, price and set of names, by token type. {{…}} is filled by
-- attribution/focus/question.py. Parameters: since, until, as_of and, if asked for, customer.
--
-- The ledger rounds the cost of each call to 12 decimals. Here tokens times rate are rounded for each token type of a group, and what is
-- then missing to the ledger's sum stands in the dearest row of the group.
SELECT
    {{columns}}
FROM
(
    SELECT
        * EXCEPT (entry),
        meter,
        toString(entry) AS entry,
        if(priced AND usage_source != 'none' AND price_id != '', splitByChar(',', price_id)[2], provider) AS sku_provider,
        if(priced AND usage_source != 'none' AND price_id != '', splitByChar(',', price_id)[3], model) AS sku_model,
        concat(sku_provider, ',', sku_model) AS sku,
        multiIf(NOT priced, concat(sku, ',unpriced'), usage_source = 'none', concat(sku, ',not charged'), price_id = '', sku, price_id) AS sku_price,
        multiIf(provider != '', provider, entry = 'allocation', tenant, 'unknown') AS provider_name,
        if(provider = '' AND entry = 'allocation', 'Shared cost', concat(provider_name, ' API')) AS service_name,
        if(counted OR (closed AND entry != 'trueup'), 'Usage', 'Adjustment') AS category,
        mapFilter(
            (key, value) -> value != '',
            map(
                'tallystick/customer', customer::String, 'tallystick/feature', feature::String, 'tallystick/agent', agent::String,
                'tallystick/team', team::String, 'tallystick/service', service::String, 'tallystick/environment', environment::String)
        ) AS names,
        mapConcat(mapFilter((key, value) -> NOT startsWith(key, 'tallystick/'), tags::Map(String, String)), names) AS all_tags,
        if(empty(all_tags), '', toJSONString(all_tags)) AS tags_json,
        if(
            empty(names), tenant,
            arrayStringConcat(arrayMap((key, value) -> concat(substring(key, 12), '=', value), mapKeys(names), mapValues(names)), ',')
        ) AS allocated_to,
        ['Input Tokens', 'Cache Read Tokens', 'Cache Write Tokens', 'Cache Write Tokens of an Hour', 'Output Tokens', 'Reasoning Tokens',
            'Audio Input Tokens', 'Audio Output Tokens', 'Image Input Tokens', 'Requests'][at] AS meter_name,
        ['input', 'cache_read', 'cache_write_5m', 'cache_write_1h', 'output', 'reasoning', 'audio_input', 'audio_output', 'image_input',
            'request'][at] AS token_type,
        greatest(meter, 1) AS at,
        tokens[at] AS quantity,
        rates[at] AS rate,
        list_rates[at] AS list_rate,
        if(meter = 10, 1, 1000000) AS pricing_unit,
        if(meter = 0, cost, costs[at] + if(meter = dearest, cost - arraySum(costs), toDecimal128(0, 12))) AS billed
    FROM
    (
        SELECT
            entries.*,
            arrayMap(rate -> if(priced AND usage_source != 'none', rate, toDecimal128(0, 24)), arrayResize(price.rates, 10)) AS rates,
            arrayMap(rate -> if(priced AND usage_source != 'none', rate, toDecimal128(0, 24)), arrayResize(list_price.rates, 10)) AS list_rates,
            arrayMap((count, rate) -> toDecimal128(round(count * rate, 12), 12), tokens, rates) AS costs,
            if(arrayMax(arrayMap(x -> abs(x), costs)) = 0, 10, indexOf(arrayMap(x -> abs(x), costs), arrayMax(arrayMap(x -> abs(x), costs))))
                AS dearest,
            if(counted, arrayFilter(i -> tokens[i] != 0 OR i = 10, range(1, 11)), [0]) AS meters
        FROM
        (
            SELECT
                s.entry AS entry,
                toDateTime({{period}}(s.started_at), 'UTC') AS period,
                s.entry IN ('void', 'reprice', 'trueup') AND toStartOfMonth(s.entered_at) > toStartOfMonth(s.started_at) AS closed,
                if(closed, toStartOfMonth(s.entered_at), toStartOfMonth(s.started_at)) AS billing_month,
                s.tenant AS tenant, s.customer AS customer, s.feature AS feature, s.agent AS agent, s.team AS team, s.service AS service,
                s.environment AS environment, mapSort(s.tags) AS tags, s.provider AS provider,
                if(s.response_model != '', s.response_model, s.request_model) AS model, s.operation AS operation, s.service_tier AS service_tier,
                s.price_id AS price_id, {{list_price_id}} AS list_price_id, toString(s.usage_source) AS usage_source, s.reason AS reason,
                s.correction AS correction, s.cost_usd IS NOT NULL AS priced, s.calls != 0 AS counted,
                toDecimal128(ifNull(sum(s.cost_usd), 0), 12) AS cost,
                -- Buckets as schema/sql/cost.sql charges them; `calls` is the sign, and 0 of entries that count no call.
                sumForEach(arrayMap(
                    bucket -> toInt64(s.calls * bucket),
                    [
                        greatest(ifNull(s.calls * s.input_tokens, 0) - ifNull(s.calls * s.audio_input_tokens, 0)
                            - ifNull(s.calls * s.image_input_tokens, 0), 0),
                        ifNull(s.calls * s.cache_read_tokens, 0),
                        ifNull(s.calls * s.cache_write_5m_tokens, 0),
                        ifNull(s.calls * s.cache_write_1h_tokens, 0),
                        greatest(ifNull(s.calls * s.output_tokens, 0) - ifNull(s.calls * s.reasoning_tokens, 0)
                            - ifNull(s.calls * s.audio_output_tokens, 0), 0),
                        least(ifNull(s.calls * s.reasoning_tokens, 0), ifNull(s.calls * s.output_tokens, 0)),
                        least(ifNull(s.calls * s.audio_input_tokens, 0), ifNull(s.calls * s.input_tokens, 0)),
                        least(ifNull(s.calls * s.audio_output_tokens, 0),
                            greatest(ifNull(s.calls * s.output_tokens, 0) - ifNull(s.calls * s.reasoning_tokens, 0), 0)),
                        least(ifNull(s.calls * s.image_input_tokens, 0),
                            greatest(ifNull(s.calls * s.input_tokens, 0) - ifNull(s.calls * s.audio_input_tokens, 0), 0)),
                        1
                    ])) AS tokens
            FROM ledger AS s
            {{list_join}}
            WHERE {{where}}
            GROUP BY ALL
        ) AS entries
        LEFT JOIN ({{rates}}) AS price ON entries.price_id = price.id
        LEFT JOIN ({{list_rates}}) AS list_price ON entries.list_price_id = list_price.id
        -- The same entries make the same file. Sorted here, where rows are narrow.
        ORDER BY
            period, tenant, customer, feature, agent, team, service, environment, tags, provider, model, operation, service_tier, entry,
            reason, correction, billing_month, usage_source, priced, price_id, list_price_id
    )
    ARRAY JOIN meters AS meter
)
