-- Two versions of a prompt (or any two values of a dimension) against each other: cost, tokens, latency, errors and outcomes.
--
-- definition:
-- * measure: `cost_usd`, `input_tokens` (caches included) and `output_tokens` of a call; `ttft_ms` and `end_to_end_ms` of calls that ended well and that a
--   model answered; `error_rate`, errors / calls; `success_rate`, successful outcomes / outcomes of the traces (where there is none: sessions) in
--   which calls of one of the two versions were made, and none of the other
-- * a_n, b_n: calls (or outcomes) of version a and b that tell the measure. Of a call corrections count; those entered twice don't
-- * a, b: their mean, or share from 0 to 1; NULL where there are none
-- * difference: b − a
-- * low, high: 95 % interval of the difference: Welch's t of means (its quantile by an expansion, right to 0.01 from 3 degrees of freedom on),
--   Newcombe's from Wilson's of shares (1998, method 10); NULL under two calls. Calls are taken for independent; many calls of few sessions make it too narrow. One of twenty intervals misses by chance
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
    corrected AS
    (
        SELECT tenant, trace_id, span_id
        FROM charges
        WHERE entry != 'call' AND /*period*/ AND /*where*/
    ),
    -- A row a call; `side` is 1 for a, 0 for b. Only those that were corrected are put together of several entries.
    compared AS
    (
        SELECT
            toString((/*dimension:expressions*/ '').1) = {a:String} AS side,
            status = 'ok' AND cache_hit = '' AS well,
            toFloat64(cost_usd) AS cost,
            toFloat64(input_tokens + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)) AS input,
            toFloat64(output_tokens) AS output,
            toNullable(toFloat64(status = 'error')) AS failed,
            if(well, ttft_ms, NULL) AS first_token,
            if(well, toNullable((toUnixTimestamp64Nano(ended_at) - toUnixTimestamp64Nano(started_at)) / 1e6), NULL) AS whole
        FROM charges
        WHERE entry = 'call' AND /*period*/ AND /*where*/ AND toString((/*dimension:expressions*/ '').1) IN ({a:String}, {b:String})
            AND (tenant, trace_id, span_id) NOT IN corrected
        UNION ALL
        SELECT
            toString((/*dimension:expressions*/ '').1) = {a:String} AS side,
            anyIf(status = 'ok' AND cache_hit = '', entry = 'call') AS well,
            toFloat64(sum(cost_usd)),
            toFloat64(sum(input_tokens) + ifNull(sum(cache_read_tokens), 0) + ifNull(sum(cache_write_5m_tokens), 0)
                + ifNull(sum(cache_write_1h_tokens), 0)),
            toFloat64(sum(output_tokens)),
            toNullable(toFloat64(anyIf(status, entry = 'call') = 'error')),
            if(well, anyIf(ttft_ms, entry = 'call'), NULL),
            if(well, toNullable((toUnixTimestamp64Nano(max(ended_at)) - toUnixTimestamp64Nano(min(started_at))) / 1e6), NULL)
        FROM charges
        WHERE /*period*/ AND /*where*/ AND toString((/*dimension:expressions*/ '').1) IN ({a:String}, {b:String})
            AND (tenant, trace_id, span_id) IN corrected
        GROUP BY tenant, trace_id, span_id, side
        HAVING sum(calls) > 0
    ),
    -- Traces and sessions of which something is known to have come, with calls of one version only.
    came_out AS
    (
        SELECT side, success, counts
        FROM outcomes
        INNER JOIN
        (
            SELECT of_tenant, link, any(link_side) AS side
            FROM
            (
                SELECT
                    tenant AS of_tenant,
                    arrayJoin([('trace', charges.trace_id), ('session', charges.session)]) AS link,
                    toString((/*dimension:expressions*/ '').1) = {a:String} AS link_side
                FROM charges
                WHERE /*period*/ AND /*where*/ AND toString((/*dimension:expressions*/ '').1) IN ({a:String}, {b:String})
                    AND (charges.trace_id IN (SELECT trace_id FROM outcomes) OR charges.session IN (SELECT session FROM outcomes))
                GROUP BY of_tenant, link, link_side
                HAVING sum(calls) > 0
            )
            WHERE link.2 != ''
            GROUP BY of_tenant, link
            HAVING count() = 1
        ) AS links ON outcomes.tenant = links.of_tenant
            AND if(outcomes.trace_id != '', ('trace', outcomes.trace_id), ('session', outcomes.session)) = links.link
    ),
    figures AS
    (
        SELECT
            told.1 AS measure,
            toInt64(countIf(isNotNull(told.2) AND side)) AS a_n,
            toInt64(countIf(isNotNull(told.2) AND NOT side)) AS b_n,
            avgIf(told.2, side) AS a,
            avgIf(told.2, NOT side) AS b,
            varSampStableIf(assumeNotNull(told.2), isNotNull(told.2) AND side) / a_n AS a_variance,
            varSampStableIf(assumeNotNull(told.2), isNotNull(told.2) AND NOT side) / b_n AS b_variance
        FROM compared
        ARRAY JOIN [
            ('cost_usd', cost), ('input_tokens', input), ('output_tokens', output), ('ttft_ms', first_token),
            ('end_to_end_ms', whole), ('error_rate', failed)
        ] AS told
        GROUP BY measure
        UNION ALL
        SELECT
            'success_rate',
            sumIf(counts, side) AS a_n,
            sumIf(counts, NOT side) AS b_n,
            if(a_n > 0, sumIf(counts, side AND success) / a_n, NULL),
            if(b_n > 0, sumIf(counts, NOT side AND success) / b_n, NULL),
            0, 0
        FROM came_out
        HAVING count() > 0
    ),
    1.959963984540054 AS z,
    (a + z * z / 2 / a_n) / (1 + z * z / a_n) AS a_middle,
    (b + z * z / 2 / b_n) / (1 + z * z / b_n) AS b_middle,
    z * sqrt(a * (1 - a) / a_n + z * z / 4 / a_n / a_n) / (1 + z * z / a_n) AS a_reach,
    z * sqrt(b * (1 - b) / b_n + z * z / 4 / b_n / b_n) / (1 + z * z / b_n) AS b_reach,
    measure LIKE '%_rate' AS is_share,
    -- Degrees of freedom by Welch and Satterthwaite, and the 0.975 quantile of Student's t by its Cornish-Fisher expansion around the normal's
    -- (Abramowitz and Stegun 26.7.5): the engine's own test fails where all calls of each version are alike.
    pow(a_variance + b_variance, 2) / (pow(a_variance, 2) / (a_n - 1) + pow(b_variance, 2) / (b_n - 1)) AS freedom,
    z + (pow(z, 3) + z) / 4 / freedom + (5 * pow(z, 5) + 16 * pow(z, 3) + 3 * z) / 96 / pow(freedom, 2)
    + (3 * pow(z, 7) + 19 * pow(z, 5) + 17 * pow(z, 3) - 15 * z) / 384 / pow(freedom, 3)
    + (79 * pow(z, 9) + 776 * pow(z, 7) + 1482 * pow(z, 5) - 1920 * pow(z, 3) - 945 * z) / 92160 / pow(freedom, 4) AS student,
    if(a_variance + b_variance > 0, student * sqrt(a_variance + b_variance), 0) AS reach
SELECT
    measure,
    a_n,
    b_n,
    a,
    b,
    b - a AS difference,
    multiIf(
        a_n < 2 OR b_n < 2, NULL,
        is_share, difference - sqrt(pow(b - b_middle + b_reach, 2) + pow(a_middle + a_reach - a, 2)),
        difference - reach) AS low,
    multiIf(
        a_n < 2 OR b_n < 2, NULL,
        is_share, difference + sqrt(pow(b_middle + b_reach - b, 2) + pow(a - a_middle + a_reach, 2)),
        difference + reach) AS high,
    difference / nullIf(a, 0) AS change,
    multiIf(a_n < 30 OR b_n < 30, 'too few', high < 0, 'b is lower', low > 0, 'b is higher', 'no difference shown') AS verdict
FROM figures
ORDER BY indexOf(['cost_usd', 'input_tokens', 'output_tokens', 'ttft_ms', 'end_to_end_ms', 'error_rate', 'success_rate'], measure)
