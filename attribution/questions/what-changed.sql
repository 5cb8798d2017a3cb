-- Why a period cost more or less than the one before: volume, mix, tokens a call, cache share and price, which add up to the difference.
--
-- definition:
-- * level: `total`, the sum of all groups, stands first; then a row for each `group`, what changed most first
-- * before_usd, cost_usd: sum of all entries of the period before and of the period, corrections included; NULL where nothing is priced
-- * change_usd: cost_usd − before_usd, nothing priced counting as 0. It is the sum of the seven amounts that follow, to the last decimal, in each row. They are worked out one
--   after the other in this order, each at what came before it as it is now, and what comes after it as it was
-- * volume_usd: other calls than before, at the group's cost a call of before
-- * mix_usd: other shares of model, feature and service tier in the group's calls, at the cost a call that each had; one that the group
--   didn't have before counts at its cost of now
-- * tokens_usd: other tokens a call, input in all and output, at the average rate that each had
-- * cache_usd: other shares of input read from the provider's cache, written to it, or neither, at the rates of before (price_rates)
-- * price_usd: the rest, what the same tokens cost more or less: rates, long-context tiers, fees a call, entries `reprice`, and all rounding
-- * new_or_gone_usd: groups without a priced call in one of the periods, as a whole; their other terms are 0
-- * allocated_usd: entries `allocation` and `trueup`, which no call caused
-- * calls_before, calls: priced calls
-- * unpriced_before, unpriced: calls without a cost, in none of the amounts: where they differ, the change is partly one of coverage
-- parameters:
-- * by dimensions = feature: what to group by; no times. `total` shows mix between features and models as such
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * against_since time = 1970-01-01: from when on to compare; unless given with against_until, the period of the same length before
-- * against_until time = 1970-01-01: before when to compare; what lies in both periods counts to the later
-- * where filters: only entries that have these values
-- * limit count = 50: most groups; the total is of all
-- example: tallystick ask what-changed --by customer --since 2026-11-01 --until 2026-11-15
WITH
    priced AS
    (
        SELECT
            /*by:expressions*/
            (provider, if(response_model != '', response_model, request_model), feature, service_tier) AS segment,
            price_id AS price,
            /*period*/ AS present,
            sumIf(calls, cost_usd IS NOT NULL) AS n,
            sumIf(calls, cost_usd IS NULL) AS without_price,
            count() AS entries,
            countIf(cost_usd IS NOT NULL) AS costs,
            toDecimal256(ifNull(sumIf(cost_usd, entry NOT IN ('allocation', 'trueup')), 0), 30) AS cost,
            toDecimal256(ifNull(sumIf(cost_usd, entry IN ('allocation', 'trueup')), 0), 30) AS shared,
            arrayMap(count -> ifNull(count, 0), [
                sumIf(input_tokens, cost_usd IS NOT NULL),
                sumIf(cache_read_tokens, cost_usd IS NOT NULL),
                sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL),
                sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL),
                sumIf(output_tokens, cost_usd IS NOT NULL)
            ]) AS tokens,
            ifNull(sumIf(audio_input_tokens, cost_usd IS NOT NULL), 0) AS audio_in,
            ifNull(sumIf(image_input_tokens, cost_usd IS NOT NULL), 0) AS image_in,
            ifNull(sumIf(audio_output_tokens, cost_usd IS NOT NULL), 0) AS audio_out,
            ifNull(sumIf(reasoning_tokens, cost_usd IS NOT NULL), 0) AS reasoning
        FROM charges
        WHERE /*where*/ AND (
            /*period*/
            OR (/*before*/ AND {against_since:DateTime64(9, 'UTC')} >= {against_until:DateTime64(9, 'UTC')})
            OR (started_at >= {against_since:DateTime64(9, 'UTC')} AND started_at < {against_until:DateTime64(9, 'UTC')}))
        GROUP BY ALL
    ),
    -- By kind of token: its rate, and what it came to. Where rates aren't known, a token costs the same of whatever kind.
    rated AS
    (
        SELECT
            priced.*,
            if(
                known,
                arrayMap(rate -> toDecimal256(rate, 30), [input_usd, cache_read_usd, cache_write_5m_usd, cache_write_1h_usd, output_usd]),
                arrayWithConstant(5, if(arraySum(tokens) > 0, cost / arraySum(tokens), toDecimal256(0, 30)))) AS rates,
            arrayMap((count, rate, parts) -> count * rate + parts, tokens, rates, [
                toDecimal256(audio_in * (audio_input_usd - input_usd) + image_in * (image_input_usd - input_usd), 30),
                toDecimal256(0, 30), toDecimal256(0, 30), toDecimal256(0, 30),
                toDecimal256(audio_out * (audio_output_usd - output_usd) + reasoning * (reasoning_usd - output_usd), 30)
            ]) AS amounts
        FROM priced
        LEFT JOIN (SELECT *, true AS known FROM price_rates) AS price_rates ON priced.price = price_rates.price_id
    ),
    -- A segment of a group in both periods: 0 is before, 1 is now.
    segments AS
    (
        SELECT
            /*by:names*/
            segment,
            sumIf(n, NOT present) AS n0,
            sumIf(n, present) AS n1,
            sumIf(without_price, NOT present) AS without0,
            sumIf(without_price, present) AS without1,
            sum(entries) AS all_entries,
            sumIf(costs, NOT present) AS costs0,
            sumIf(costs, present) AS costs1,
            sumIf(cost, NOT present) AS cost0,
            sumIf(cost, present) AS cost1,
            sumIf(shared, NOT present) AS shared0,
            sumIf(shared, present) AS shared1,
            arrayResize(sumForEachIf(tokens, NOT present), 5) AS tokens0,
            arrayResize(sumForEachIf(tokens, present), 5) AS tokens1,
            arrayResize(sumForEachIf(amounts, NOT present), 5) AS amounts0,
            arrayResize(sumForEachIf(arrayMap(rate -> n * rate, rates), NOT present), 5) AS listed0,
            n0 > 0 AND n1 > 0 AS both,
            arrayMap(
                (count, amount, listed) -> multiIf(count > 0, amount / if(count > 0, count, 1), both, listed / if(both, n0, 1), toDecimal256(0, 30)),
                tokens0, amounts0, listed0) AS rates0,
            arraySum(arraySlice(tokens0, 1, 4)) AS read0,
            arraySum(arraySlice(tokens1, 1, 4)) AS read1,
            arraySum(arraySlice(amounts0, 1, 4)) AS read_amount0,
            if(read0 > 0, read_amount0 / if(read0 > 0, read0, 1), rates0[1]) AS read_rate0,
            if(both, cost0 * n1 / if(both, n0, 1), cost1) AS reached,
            if(both, read1 * read_rate0 + tokens1[5] * rates0[5] - (read_amount0 + amounts0[5]) * n1 / if(both, n0, 1), toDecimal256(0, 30))
                AS more_tokens,
            if(both, arraySum(arrayMap((count, rate) -> count * rate, arraySlice(tokens1, 1, 4), arraySlice(rates0, 1, 4)))
                - read1 * read_rate0, toDecimal256(0, 30)) AS other_cache
        FROM rated
        GROUP BY ALL
    ),
    groups AS
    (
        SELECT
            'group' AS level_name,
            /*by:names*/
            sum(n0) AS calls0,
            sum(n1) AS calls1,
            sum(without0) AS all_without0,
            sum(without1) AS all_without1,
            calls0 > 0 AND calls1 > 0 AS compared,
            sum(all_entries) AS group_entries,
            sum(costs0) AS group_costs0,
            sum(costs1) AS group_costs1,
            sum(cost0) AS call_cost0,
            sum(cost1) AS call_cost1,
            call_cost0 + sum(shared0) AS spent0,
            call_cost1 + sum(shared1) AS spent1,
            if(compared, round(call_cost0 * (calls1 - calls0) / if(compared, calls0, 1), 12), toDecimal256(0, 30)) AS volume,
            if(compared, round(sum(reached) - call_cost0 * calls1 / if(compared, calls0, 1), 12), toDecimal256(0, 30)) AS mix,
            if(compared, round(sum(more_tokens), 12), toDecimal256(0, 30)) AS token_change,
            if(compared, round(sum(other_cache), 12), toDecimal256(0, 30)) AS cache_change,
            if(compared, toDecimal256(0, 30), call_cost1 - call_cost0) AS new_or_gone,
            sum(shared1) - sum(shared0) AS allocated,
            spent1 - spent0 - volume - mix - token_change - cache_change - new_or_gone - allocated AS price_change
        FROM segments
        GROUP BY ALL
    )
SELECT
    if(level_name = '', 'total', level_name) AS level,
    /*by:names*/
    if(sum(group_costs0) > 0, toDecimal128(sum(spent0), 12), NULL) AS before_usd,
    if(sum(group_costs1) > 0, toDecimal128(sum(spent1), 12), NULL) AS cost_usd,
    toDecimal128(sum(spent1 - spent0), 12) AS change_usd,
    toDecimal128(sum(volume), 12) AS volume_usd,
    toDecimal128(sum(mix), 12) AS mix_usd,
    toDecimal128(sum(token_change), 12) AS tokens_usd,
    toDecimal128(sum(cache_change), 12) AS cache_usd,
    toDecimal128(sum(price_change), 12) AS price_usd,
    toDecimal128(sum(new_or_gone), 12) AS new_or_gone_usd,
    toDecimal128(sum(allocated), 12) AS allocated_usd,
    sum(calls0) AS calls_before,
    sum(calls1) AS calls,
    sum(all_without0) AS unpriced_before,
    sum(all_without1) AS unpriced
FROM groups
GROUP BY GROUPING SETS ((/*by:names*/ level_name), ())
HAVING sum(group_entries) > 0
ORDER BY level_name != '', abs(change_usd) DESC, cost_usd DESC NULLS LAST, /*by:names*/ 1
LIMIT 1 + {limit:UInt32}
