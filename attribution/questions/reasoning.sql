-- Tokens of reasoning: how much of what models write nobody reads, and what it costs.
--
-- definition:
-- * calls: calls, without those that were entered twice
-- * told: share of the calls that tell their tokens of reasoning (0 is told, too), 0 to 1. All that follows is of these
-- * output_tokens: generated, reasoning included
-- * reasoning_tokens: of these, spent on reasoning
-- * share: reasoning_tokens / output_tokens, 0 to 1
-- * tokens_per_call: reasoning_tokens a call
-- * reasoning_usd: reasoning_tokens at the rate of the price with which the call was entered (price_rates): later entries that only change a
--   price aren't in it. NULL where no such rate is known
-- * share_of_cost: reasoning_usd / the cost with which the same calls were entered, 0 to 1
-- * unpriced: calls whose rate isn't known, in neither of the two
-- parameters:
-- * by dimensions = model,feature: what to group by
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask reasoning --by model --where feature=research
SELECT
    /*by:names*/
    sum(all_calls) AS calls,
    if(calls > 0, sum(telling) / calls, NULL) AS told,
    sum(output) AS output_tokens,
    sum(reasoning) AS reasoning_tokens,
    if(output_tokens > 0, reasoning_tokens / output_tokens, NULL) AS share,
    if(sum(telling) > 0, reasoning_tokens / sum(telling), NULL) AS tokens_per_call,
    toDecimal128(round(sum(reasoning_cost), 12), 12) AS reasoning_usd,
    toFloat64(reasoning_usd) / nullIf(toFloat64(sumIf(cost, isNotNull(reasoning_cost))), 0) AS share_of_cost,
    sumIf(telling, isNull(reasoning_cost)) AS unpriced
FROM
(
    SELECT
        entered.*,
        if(has_rate AND has_cost, toDecimal256(reasoning, 0) * rate, NULL) AS reasoning_cost
    FROM
    (
        SELECT
            /*by:expressions*/
            price_id AS price,
            cost_usd IS NOT NULL AS has_cost,
            sum(charges.calls) AS all_calls,
            sumIf(charges.calls, charges.reasoning_tokens IS NOT NULL) AS telling,
            sumIf(charges.output_tokens, charges.reasoning_tokens IS NOT NULL) AS output,
            sum(charges.reasoning_tokens) AS reasoning,
            sumIf(cost_usd, charges.reasoning_tokens IS NOT NULL) AS cost
        FROM charges
        WHERE /*period*/ AND /*where*/
        GROUP BY ALL
    ) AS entered
    LEFT JOIN (SELECT price_id AS known_price, reasoning_usd AS rate, true AS has_rate FROM price_rates) AS rates
        ON entered.price = rates.known_price
)
GROUP BY ALL
HAVING calls != 0
ORDER BY reasoning_usd DESC NULLS LAST, reasoning_tokens DESC NULLS LAST, calls DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
