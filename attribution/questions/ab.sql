-- Two versions of a prompt (or any two values of a dimension) against each other: cost, tokens, latency, errors and outcomes.
--
-- definition:
-- * measure: `cost_usd`, `input_tokens` (caches included) and `output_tokens` of a call; `ttft_ms` and `end_to_end_ms` of calls that ended well and that a
--   model answered; `error_rate`, errors / calls; `success_rate`, successful outcomes / outcomes of the traces (where there is none: sessions) in
--   which calls of one of the two versions were made, and none of the other
-- * a_n, b_n: calls (or outcomes) of version a and b that tell the measure. Of a call corrections count; those entered twice don't
-- * a, b: their mean, or share from 0 to 1; NULL where there are none
-- * difference: b − a
-- * low, high: 95 % interval of the difference: Welch's t of means, Newcombe's from Wilson's of shares (1998, method 10); NULL under two
--   calls. Calls are taken for independent; many calls of few sessions make it too narrow. One of twenty intervals misses by chance
-- * change: difference / a
-- * verdict: `b is lower` or `b is higher` where the interval leaves 0 out, `no difference shown` where it doesn't, `too few` where
--   one of the versions has fewer than 30
-- parameters:
-- * a text: the first version
-- * b text: the second
-- * dimension dimensions = tag:prompt_version: whose values these are; one
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only calls that have these values
-- example: tallystick ask ab --param a=v1 --param b=v2 --where feature=support --since 14d
WITH
    -- 1 is a, 0 is b: the engine's test takes the mean of 1 from that of 0.
    compared AS
    (
        SELECT
            tenant,
            trace_id,
            any(session) AS in_session,
            toString((/*dimension:expressions*/ '').1) = {a:String} AS side,
            any(status) AS ended,
            any(status = 'ok' AND cache_hit = '') AS well,
            toFloat64(sum(cost_usd)) AS cost,
            toFloat64(sum(input_tokens) + ifNull(sum(cache_read_tokens), 0) + ifNull(sum(cache_write_5m_tokens), 0)
                + ifNull(sum(cache_write_1h_tokens), 0)) AS input,
            toFloat64(sum(output_tokens)) AS output,
            if(well, any(ttft_ms), NULL) AS first_token,
            if(well, toNullable((toUnixTimestamp64Nano(any(ended_at)) - toUnixTimestamp64Nano(any(started_at))) / 1e6), NULL) AS whole
        FROM charges
        WHERE /*period*/ AND /*where*/ AND toString((/*dimension:expressions*/ '').1) IN ({a:String}, {b:String})
        GROUP BY tenant, trace_id, span_id, side
        HAVING sum(calls) > 0
    ),
    came_out AS
    (
        SELECT side, success, counts
        FROM outcomes
        INNER JOIN
        (
            SELECT tenant AS of_tenant, arrayJoin([('trace', trace_id), ('session', in_session)]) AS link, any(compared.side) AS side
            FROM compared
            WHERE link.2 != ''
            GROUP BY of_tenant, link
            HAVING uniqExact(compared.side) = 1
        ) AS links ON outcomes.tenant = links.of_tenant
            AND if(outcomes.trace_id != '', ('trace', outcomes.trace_id), ('session', outcomes.session)) = links.link
    ),
    means AS
    (
        SELECT
            told.1 AS measure,
            countIf(isNotNull(told.2) AND side) AS a_n,
            countIf(isNotNull(told.2) AND NOT side) AS b_n,
            avgIf(told.2, side) AS a,
            avgIf(told.2, NOT side) AS b,
            welchTTest(0.95)(told.2, side) AS test,
            isFinite(test.3) AS varied,
            a_n > 1 AND b_n > 1 AS enough,
            multiIf(varied, test.3, enough, b - a, NULL) AS low,
            multiIf(varied, test.4, enough, b - a, NULL) AS high
        FROM compared
        ARRAY JOIN [
            ('cost_usd', cost), ('input_tokens', input), ('output_tokens', output), ('ttft_ms', first_token), ('end_to_end_ms', whole)
        ] AS told
        GROUP BY measure
    ),
    shares AS
    (
        SELECT
            measure, a_n, b_n,
            if(a_n > 0, a_hits / a_n, NULL) AS a,
            if(b_n > 0, b_hits / b_n, NULL) AS b,
            1.959963984540054 AS z,
            (a + z * z / 2 / a_n) / (1 + z * z / a_n) AS a_middle,
            z * sqrt(a * (1 - a) / a_n + z * z / 4 / a_n / a_n) / (1 + z * z / a_n) AS a_reach,
            (b + z * z / 2 / b_n) / (1 + z * z / b_n) AS b_middle,
            z * sqrt(b * (1 - b) / b_n + z * z / 4 / b_n / b_n) / (1 + z * z / b_n) AS b_reach,
            b - a - sqrt(pow(b - b_middle + b_reach, 2) + pow(a_middle + a_reach - a, 2)) AS low,
            b - a + sqrt(pow(b_middle + b_reach - b, 2) + pow(a - a_middle + a_reach, 2)) AS high
        FROM
        (
            SELECT
                'error_rate' AS measure,
                toInt64(countIf(side)) AS a_n, toInt64(countIf(NOT side)) AS b_n,
                toInt64(countIf(side AND ended = 'error')) AS a_hits, toInt64(countIf(NOT side AND ended = 'error')) AS b_hits
            FROM compared
            UNION ALL
            SELECT 'success_rate', sumIf(counts, side), sumIf(counts, NOT side), sumIf(counts, side AND success), sumIf(counts, NOT side AND success)
            FROM came_out
        )
        WHERE a_n > 0 OR b_n > 0
    )
SELECT
    measure,
    a_n,
    b_n,
    a,
    b,
    b - a AS difference,
    low,
    high,
    difference / nullIf(a, 0) AS change,
    multiIf(a_n < 30 OR b_n < 30, 'too few', high < 0, 'b is lower', low > 0, 'b is higher', 'no difference shown') AS verdict
FROM
(
    SELECT measure, toInt64(a_n) AS a_n, toInt64(b_n) AS b_n, a, b, low, high FROM means
    UNION ALL
    SELECT measure, a_n, b_n, a, b, low, high FROM shares
)
ORDER BY indexOf(['cost_usd', 'input_tokens', 'output_tokens', 'ttft_ms', 'end_to_end_ms', 'error_rate', 'success_rate'], measure)
