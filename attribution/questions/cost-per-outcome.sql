-- What a successful outcome costs, what it earns, and how much of the spend has no outcome.
--
-- definition:
-- * outcomes: outcomes of the period, reported or told by the tag `outcome` of a call
-- * successes: of these, the successful ones
-- * success_rate: successes / outcomes
-- * cost_usd: cost of the calls of the outcomes' traces, of those that name no trace of their sessions; corrections included. Outcomes
--   of the same trace or session share its cost equally, to the last decimal. NULL where none of it is known
-- * cost_per_success_usd: cost_usd / successes: what failed is paid for by what succeeded
-- * revenue_usd: sum of what outcomes earned, NULL where none says
-- * margin_usd: revenue_usd − cost_usd
-- * revenue_per_usd: revenue_usd / cost_usd
-- * revenue_per_million_tokens_usd: 1,000,000 × revenue_usd / tokens of the same calls
-- * without_cost: outcomes of which no call with a cost is known
-- * without_revenue: outcomes of which no revenue is known; they count as 0 in what is made of it
-- * spend_usd: of all groups: everything spent in the period
-- * spend_without_outcome_usd: of all groups: of spend_usd, what belongs to no trace or session with an outcome of the period
-- parameters:
-- * by dimensions outcome|customer|feature|agent|session|tenant|hour|day|month|tag: = outcome: what to group outcomes by; what they
--   don't say of customer, feature and agent, their calls do
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters customer|feature|agent|session|tenant|tag:: only outcomes, and for spend_usd entries, that have these values
-- * lookback count = 7: days before `since` in which a call of an outcome may have begun
-- * limit count = 100: most rows
-- example: tallystick ask cost-per-outcome --by feature,outcome --since 30d
WITH
    told AS
    (
        SELECT
            multiIf(trace_id != '', (tenant, 'trace', trace_id), session != '', (tenant, 'session', session), ('', '', '')) AS tie,
            outcome, success, counts, revenue_usd, at, tenant, customer, feature, agent, session, trace_id, tags
        FROM outcomes
        WHERE at >= {since:DateTime64(9, 'UTC')} AND at < {until:DateTime64(9, 'UTC')}
    ),
    spent AS
    (
        SELECT
            if(
                (tenant, trace_id) IN (SELECT tenant, trace_id FROM told WHERE trace_id != ''),
                (tenant, 'trace', trace_id), (tenant, 'session', session)
            ) AS tie,
            sum(cost_usd) AS tied_cost,
            sumIf(cost_usd, /*period*/ AND /*where*/) AS tied_in_period,
            sum(
                ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
                + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)) AS tied_tokens,
            -- Of several the same one, wherever the rows stand.
            minIf(customer, customer != '') AS tied_customer,
            minIf(feature, feature != '') AS tied_feature,
            minIf(agent, agent != '') AS tied_agent
        FROM charges
        WHERE started_at >= {since:DateTime64(9, 'UTC')} - toIntervalDay({lookback:UInt16}) AND started_at < {until:DateTime64(9, 'UTC')}
            AND ((tenant, session) IN (SELECT tenant, session FROM told WHERE trace_id = '' AND session != '')
                OR (tenant, trace_id) IN (SELECT tenant, trace_id FROM told WHERE trace_id != ''))
        GROUP BY tie
    ),
    -- As many as there are: outcomes of calls that were taken back cancel out.
    counted AS
    (
        SELECT
            /*by:expressions*/
            tie,
            any(tied_cost) AS cost,
            any(tied_tokens) AS tokens,
            sum(counts) AS n,
            sumIf(counts, success) AS successful,
            sum(revenue_usd) AS revenue,
            sumIf(counts, revenue_usd IS NULL) AS revenue_unknown
        FROM
        (
            SELECT
                tie, outcome, success, counts, revenue_usd, at AS started_at, tenant, session, tags, tied_cost, tied_tokens,
                if(told.customer != '', told.customer, tied_customer) AS customer,
                if(told.feature != '', told.feature, tied_feature) AS feature,
                if(told.agent != '', told.agent, tied_agent) AS agent
            FROM told
            LEFT JOIN spent USING (tie)
        )
        WHERE /*where*/
        GROUP BY ALL
        HAVING n > 0
    ),
    shared AS
    (
        SELECT
            *,
            sum(n) OVER (PARTITION BY tie) AS sharing,
            sum(n) OVER (PARTITION BY tie ORDER BY /*by:names*/ n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS so_far,
            cost * so_far / sharing - cost * (so_far - n) / sharing AS own_cost,
            intDiv(tokens * so_far, sharing) - intDiv(tokens * (so_far - n), sharing) AS own_tokens
        FROM counted
    )
SELECT
    /*by:names*/
    sum(n) AS outcomes,
    sum(successful) AS successes,
    successes / outcomes AS success_rate,
    sum(own_cost) AS cost_usd,
    cost_usd / nullIf(successes, 0) AS cost_per_success_usd,
    sum(revenue) AS revenue_usd,
    revenue_usd - cost_usd AS margin_usd,
    toFloat64(revenue_usd) / nullIf(toFloat64(cost_usd), 0) AS revenue_per_usd,
    1000000 * toFloat64(revenue_usd) / nullIf(sum(own_tokens), 0) AS revenue_per_million_tokens_usd,
    sumIf(n, cost IS NULL) AS without_cost,
    sum(revenue_unknown) AS without_revenue,
    (SELECT sum(cost_usd) FROM charges WHERE /*period*/ AND /*where*/) AS spend_usd,
    spend_usd - ifNull((SELECT sum(tied_in_period) FROM spent), 0) AS spend_without_outcome_usd
FROM shared
GROUP BY ALL
ORDER BY outcomes DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
