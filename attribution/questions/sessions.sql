-- The dearest sessions, or runs of agents.
--
-- definition:
-- * id: of the session, or the trace id of the run; calls without one are left out
-- * customer, feature: whose they are; `(several)` where there is more than one
-- * calls: calls, without those that were entered twice
-- * tokens: input, read from and written to the provider's cache, output; unknown counts are left out
-- * cost_usd: sum of all entries, corrections included; NULL where nothing is priced
-- * share: of the cost of all entries of the period, 0 to 1, those without a session or trace too
-- * unpriced_calls: calls that have no cost, and so aren't in cost_usd
-- * first_seen: when its first call began
-- * seconds: from the start of its first call to the end of its last, within the period; a pause counts
-- * failed: calls that ended in an error
-- * models, agents: those that took part, by name, with commas between; at most 20
-- parameters:
-- * of choice session|run = session: sessions (`session` of the scope), or runs (all calls of one trace)
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 20: most rows
-- example: tallystick ask sessions --param of=run --where feature=support --since 7d
WITH
    taken_back AS
    (
        SELECT tenant, trace_id, span_id
        FROM charges
        WHERE entry != 'call' AND calls != 0 AND /*period*/
        GROUP BY tenant, trace_id, span_id
        HAVING sum(calls) < 0
    ),
    -- First which, then more of these: there may be millions. A hash of 128 bits stands for each.
    dearest AS
    (
        SELECT sipHash128(tenant, if({of:String} = 'session', session, trace_id)) AS one
        FROM charges
        WHERE if({of:String} = 'session', session != '', trace_id != repeat('0', 32)) AND /*period*/ AND /*where*/
        GROUP BY one
        HAVING sum(calls) > 0
        ORDER BY sum(cost_usd) DESC NULLS LAST, sum(calls) DESC, one
        LIMIT {limit:UInt32}
    ),
    entry = 'call' AND (tenant, trace_id, span_id) NOT IN taken_back AS stands
SELECT
    id,
    of_customer AS customer,
    of_feature AS feature,
    group_calls AS calls,
    group_tokens AS tokens,
    group_cost AS cost_usd,
    share,
    unpriced_calls,
    first_seen,
    seconds,
    failed,
    models,
    agents
FROM
(
    SELECT
        if({of:String} = 'session', session, trace_id) AS id,
        if(uniqExactIf(customer, stands) = 1, anyIf(customer, stands), '(several)') AS of_customer,
        if(uniqExactIf(feature, stands) = 1, anyIf(feature, stands), '(several)') AS of_feature,
        sum(calls) AS group_calls,
        sum(
            ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)) AS group_tokens,
        sum(cost_usd) AS group_cost,
        toFloat64(group_cost) / nullIf(toFloat64((SELECT sum(cost_usd) FROM charges WHERE /*period*/ AND /*where*/)), 0) AS share,
        sumIf(calls, cost_usd IS NULL) AS unpriced_calls,
        minIf(started_at, stands) AS first_seen,
        toFloat64(toUnixTimestamp64Nano(maxIf(ended_at, stands)) - toUnixTimestamp64Nano(first_seen)) / 1e9 AS seconds,
        sumIf(calls, status = 'error') AS failed,
        arrayStringConcat(arraySort(groupUniqArrayIf(20)(if(response_model != '', response_model, request_model), stands)), ', ') AS models,
        arrayStringConcat(arrayFilter(name -> name != '', arraySort(groupUniqArrayIf(20)(agent, stands))), ', ') AS agents
    FROM charges
    WHERE sipHash128(tenant, if({of:String} = 'session', session, trace_id)) IN dearest AND /*period*/ AND /*where*/
    GROUP BY tenant, id
)
ORDER BY cost_usd DESC NULLS LAST, calls DESC, id
