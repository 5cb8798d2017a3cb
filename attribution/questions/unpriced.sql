-- What has no price, why, and how much of the spend may be missing.
--
-- definition:
-- * why: `no price` (the price book doesn't know the model at that time), or `usage unknown` (nobody told its tokens)
-- * calls: calls without a cost, less those that were entered twice or priced since
-- * tokens: theirs, of all kinds; unknown counts are left out
-- * calls_share, tokens_share: of all calls and tokens of the period, priced or not, 0 to 1
-- * guess_usd: a guess, not a figure: their tokens at the average cost of a token of all that is priced in the period, or, where usage is
--   unknown, their calls at the average cost of a call; NULL where nothing is priced
-- * guess_share: guess_usd / (what is priced + all guesses), 0 to 1
-- * first_seen, last_seen: when such calls began
-- parameters:
-- * by dimensions = provider,model: what to group by
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask unpriced --by model,feature --since 7d
SELECT
    /*by:names*/
    why,
    group_calls AS calls,
    group_tokens AS tokens,
    if(all_calls > 0, group_calls / all_calls, NULL) AS calls_share,
    if(all_tokens > 0, group_tokens / all_tokens, NULL) AS tokens_share,
    toDecimal128OrNull(toString(round(guess, 6)), 6) AS guess_usd,
    guess / nullIf(toFloat64(all_cost) + sum(guess) OVER (), 0) AS guess_share,
    first_seen,
    last_seen
FROM
(
    SELECT
        /*by:names*/
        why,
        group_calls,
        group_tokens,
        multiIf(
            why = 'no price', group_tokens * toFloat64(all_cost) / nullIf(all_priced_tokens, 0),
            group_calls * toFloat64(all_cost) / nullIf(all_priced_calls, 0)) AS guess,
        group_first AS first_seen,
        group_last AS last_seen,
        all_calls,
        all_tokens,
        all_cost
    FROM
    (
        SELECT
            /*by:names*/
            why,
            sum(entry_calls) AS group_calls,
            sum(entry_tokens) AS group_tokens,
            min(first_start) AS group_first,
            max(last_start) AS group_last,
            sum(sum(entry_calls)) OVER () AS all_calls,
            sum(sum(entry_tokens)) OVER () AS all_tokens,
            sum(sum(entry_cost)) OVER () AS all_cost,
            sum(sumIf(entry_calls, why = 'priced')) OVER () AS all_priced_calls,
            sum(sumIf(entry_tokens, why = 'priced')) OVER () AS all_priced_tokens
        FROM
        (
            SELECT
                /*by:expressions*/
                multiIf(
                    isNotNull(cost_usd), 'priced', isNull(input_tokens) AND isNull(output_tokens), 'usage unknown', 'no price') AS why,
                sum(calls) AS entry_calls,
                sum(
                    ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
                    + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)) AS entry_tokens,
                sum(cost_usd) AS entry_cost,
                min(started_at) AS first_start,
                max(started_at) AS last_start
            FROM charges
            WHERE /*period*/ AND /*where*/
            GROUP BY ALL
        )
        GROUP BY ALL
    )
    WHERE why != 'priced' AND group_calls != 0
)
ORDER BY guess DESC NULLS LAST, calls DESC, /*by:names*/ why
LIMIT {limit:UInt32}
