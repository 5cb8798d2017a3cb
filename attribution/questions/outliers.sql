-- The dearest single calls, or the most unusual ones, beside what calls of the same feature and model usually cost.
--
-- definition:
-- * started_at, customer, feature, agent, model, session, status, trace_id, span_id: of the call
-- * input_tokens: read in all, also from and into the provider's cache
-- * output_tokens: generated, reasoning included
-- * cost_usd: of the call, corrections included; calls that were entered twice are left out
-- * usual_usd: median cost of the period's calls of this feature and model that cost anything; of a sample of 8,192 where there are more
-- * times: cost as first priced / usual_usd; 10 is ten times what such a call costs
-- * similar_calls: calls of which usual_usd is the median; `times` says little where they are few
-- parameters:
-- * since time = 7d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values, also for what is usual
-- * order choice cost|times = cost: the dearest first, or those that are most times the usual
-- * at_least number = 0: only calls that cost at least so many USD as first priced
-- * limit count = 20: most rows
-- example: tallystick ask outliers --since 7d --where feature=chat --param order=times
WITH
    costly AS
    (
        SELECT tenant, started_at, trace_id, span_id, feature, if(response_model != '', response_model, request_model) AS model, toFloat64(cost_usd) AS cost
        FROM charges
        WHERE /*period*/ AND /*where*/ AND calls = 1 AND cost_usd > 0
    ),
    similar AS
    (
        SELECT tenant, feature, model, quantile(0.5)(cost) AS median, count() AS n
        FROM costly
        GROUP BY tenant, feature, model
    ),
    foremost AS
    (
        SELECT tenant, started_at, trace_id, span_id, model, median, n, cost / median AS ratio, if({order:String} = 'times', ratio, cost) AS rank
        FROM costly
        INNER JOIN similar USING (tenant, feature, model)
        WHERE cost >= {at_least:Float64}
        ORDER BY rank DESC, started_at
        -- Some may have been taken back.
        LIMIT 2 * {limit:UInt32}
    ),
    standing AS
    (
        SELECT
            tenant, trace_id, span_id,
            any(customer) AS customer,
            any(feature) AS feature,
            any(agent) AS agent,
            any(session) AS session,
            any(status) AS status,
            argMax(
                ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
                + ifNull(cache_write_1h_tokens, 0), calls) AS read_in,
            argMax(output_tokens, calls) AS generated,
            sum(calls) AS counted,
            sum(cost_usd) AS net
        FROM charges
        WHERE /*period*/
            AND (tenant, started_at, trace_id, span_id) IN (SELECT tenant, started_at, trace_id, span_id FROM foremost)
        GROUP BY tenant, trace_id, span_id
        HAVING counted > 0 AND net > 0
    )
SELECT
    started_at,
    customer,
    feature,
    agent,
    model,
    session,
    status,
    read_in AS input_tokens,
    generated AS output_tokens,
    net AS cost_usd,
    median AS usual_usd,
    ratio AS times,
    n AS similar_calls,
    trace_id,
    span_id
FROM foremost
INNER JOIN standing USING (tenant, trace_id, span_id)
ORDER BY rank DESC, started_at, trace_id, span_id
LIMIT 1 BY tenant, trace_id, span_id
LIMIT {limit:UInt32}
