-- How fast models answer: time to first token, time per output token, and end to end, as percentiles.
--
-- definition:
-- * measure: `ttft`, from the start to the first token, of calls that streamed, or told it without saying whether; `tpot`, (end to end − ttft) / (output tokens − 1), of calls
--   with more than one output token and a known ttft; `end_to_end`, from the start to the end. As the instrumentation saw them
-- * n: the calls measured: those that ended well and that a model answered. Left out are errors, cancelled calls, answers from a cache of
--   the application, and calls that were entered twice
-- * mean_ms: their arithmetic mean
-- * p50_ms, p90_ms, p95_ms, p99_ms: percentiles by t-digest (the rank is right to within about 1 %, at the ends far better; nothing is sampled); NULL where fewer
--   than five calls lie above: of fewer than 10, 50, 100 and 500 calls
-- * max_ms: the slowest of them
-- * errors, cancelled: calls of the group that ended so, streamed or not; they aren't in the percentiles
-- parameters:
-- * by dimensions = model: what to group by
-- * since time = 7d: from when on
-- * until time = end of today: before when
-- * where filters: only calls that have these values
-- * limit count = 100: most groups, those with most calls first
-- example: tallystick ask latency --by model,feature --where customer=acme --since 24h
WITH taken_back AS
(
    SELECT tenant, trace_id, span_id
    FROM charges
    WHERE entry != 'call' AND calls != 0 AND /*period*/
    GROUP BY tenant, trace_id, span_id
    HAVING sum(calls) < 0
)
SELECT
    /*by:names*/
    measured.1 AS measure,
    measured.2 AS n,
    round(measured.3, 3) AS mean_ms,
    if(n >= 10, round(measured.4[1], 3), NULL) AS p50_ms,
    if(n >= 50, round(measured.4[2], 3), NULL) AS p90_ms,
    if(n >= 100, round(measured.4[3], 3), NULL) AS p95_ms,
    if(n >= 500, round(measured.4[4], 3), NULL) AS p99_ms,
    round(measured.5, 3) AS max_ms,
    errors,
    cancelled
FROM
(
    SELECT
        /*by:names*/
        [
            ('ttft', count(ttft), avg(ttft), quantilesTDigest(0.5, 0.9, 0.95, 0.99)(ttft), max(ttft)),
            ('tpot', count(tpot), avg(tpot), quantilesTDigest(0.5, 0.9, 0.95, 0.99)(tpot), max(tpot)),
            ('end_to_end', count(whole), avg(whole), quantilesTDigest(0.5, 0.9, 0.95, 0.99)(whole), max(whole))
        ] AS measures,
        sum(failed) AS errors,
        sum(gave_up) AS cancelled,
        count() AS group_calls
    FROM
    (
        SELECT
            /*by:expressions*/
            status = 'ok' AND cache_hit = '' AS well,
            if(well AND ifNull(streamed, 1) = 1, ttft_ms, NULL) AS ttft,
            if(well, tpot_ms, NULL) AS tpot,
            if(well, (toUnixTimestamp64Nano(ended_at) - toUnixTimestamp64Nano(started_at)) / 1e6, NULL) AS whole,
            status = 'error' AS failed,
            status = 'cancelled' AS gave_up
        FROM charges
        WHERE entry = 'call' AND /*period*/ AND /*where*/ AND (tenant, trace_id, span_id) NOT IN taken_back
    )
    GROUP BY ALL
    ORDER BY group_calls DESC, /*by:names*/ 1
    LIMIT {limit:UInt32}
)
ARRAY JOIN measures AS measured
ORDER BY group_calls DESC, /*by:names*/ indexOf(['ttft', 'tpot', 'end_to_end'], measure)
