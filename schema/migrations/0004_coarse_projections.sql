-- Spend by customer alone, and by everything but customer: a thousand groups a month where `spend` has hundreds of thousands. The
-- engine answers from the smallest that has what is asked.
ALTER TABLE ledger ADD PROJECTION IF NOT EXISTS spend_by_customer
(
    SELECT
        tenant, toDate(started_at), customer,
        sum(calls), sum(cost_usd),
        sum(input_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
        sumIf(calls, cost_usd IS NOT NULL), sumIf(input_tokens, cost_usd IS NOT NULL), sumIf(cache_read_tokens, cost_usd IS NOT NULL),
        sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL),
        sumIf(output_tokens, cost_usd IS NOT NULL)
    GROUP BY tenant, toDate(started_at), customer
);
ALTER TABLE ledger ADD PROJECTION IF NOT EXISTS spend_by_feature
(
    SELECT
        tenant, toDate(started_at), feature, agent, team,
        sum(calls), sum(cost_usd),
        sum(input_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
        sumIf(calls, cost_usd IS NOT NULL), sumIf(input_tokens, cost_usd IS NOT NULL), sumIf(cache_read_tokens, cost_usd IS NOT NULL),
        sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL),
        sumIf(output_tokens, cost_usd IS NOT NULL)
    GROUP BY tenant, toDate(started_at), feature, agent, team
);
ALTER TABLE ledger MATERIALIZE PROJECTION spend_by_customer;
ALTER TABLE ledger MATERIALIZE PROJECTION spend_by_feature;
