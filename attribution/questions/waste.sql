-- What was spent on calls that came to nothing: errors, calls that were given up, and what was tried again.
--
-- definition:
-- * calls: calls, without those that were entered twice
-- * errors, cancelled: of these, those that ended in an error, or were given up by the caller
-- * waste_usd: error_usd + cancelled_usd; NULL where neither has a priced call
-- * error_usd, cancelled_usd: cost of all entries of such calls, corrections included; NULL where none of them is priced
-- * share: waste_usd / the group's cost, 0 to 1
-- * unpriced: errors and cancelled calls that have no cost; what the provider refused costs 0 and is priced
-- * input_tokens, output_tokens: what errors and cancelled calls read (caches included) and generated; unknown counts are left out
-- * retries: calls that began within `within` seconds after the end of an error, the next of the same session (where there is none, of the same
--   trace) and feature. Of the calls that `where` leaves
-- * retries_usd: their cost; what a retry costs is the second time that it is paid for, and isn't in waste_usd unless it failed, too
-- parameters:
-- * by dimensions = feature,model: what to group by
-- * since time = 30d: from when on
-- * until time = end of today: before when
-- * where filters: only entries that have these values
-- * within number = 30: seconds after an error that a retry may begin
-- * limit count = 100: most rows
-- example: tallystick ask waste --by feature,error_type --since 7d
WITH after_errors AS
(
    SELECT DISTINCT tenant, if(session != '', session, trace_id), feature
    FROM charges
    WHERE status = 'error' AND entry = 'call' AND /*period*/ AND /*where*/
)
SELECT
    /*by:names*/
    sum(part_calls) AS calls,
    sum(part_errors) AS errors,
    sum(part_cancelled) AS cancelled,
    if(isNull(error_usd) AND isNull(cancelled_usd), NULL, ifNull(error_usd, 0) + ifNull(cancelled_usd, 0)) AS waste_usd,
    sum(part_error_cost) AS error_usd,
    sum(part_cancelled_cost) AS cancelled_usd,
    toFloat64(waste_usd) / nullIf(toFloat64(sum(part_cost)), 0) AS share,
    sum(part_unpriced) AS unpriced,
    sum(part_input) AS input_tokens,
    sum(part_output) AS output_tokens,
    sum(part_retries) AS retries,
    sum(part_retries_cost) AS retries_usd
FROM
(
    SELECT
        /*by:expressions*/
        sum(charges.calls) AS part_calls,
        sumIf(charges.calls, charges.status = 'error') AS part_errors,
        sumIf(charges.calls, charges.status = 'cancelled') AS part_cancelled,
        sum(cost_usd) AS part_cost,
        sumIf(cost_usd, charges.status = 'error') AS part_error_cost,
        sumIf(cost_usd, charges.status = 'cancelled') AS part_cancelled_cost,
        sumIf(charges.calls, charges.status != 'ok' AND cost_usd IS NULL) AS part_unpriced,
        sumIf(
            ifNull(charges.input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
            + ifNull(cache_write_1h_tokens, 0), charges.status != 'ok') AS part_input,
        sumIf(ifNull(charges.output_tokens, 0), charges.status != 'ok') AS part_output,
        toUInt64(0) AS part_retries,
        CAST(NULL, 'Nullable(Decimal(38, 12))') AS part_retries_cost
    FROM charges
    WHERE /*period*/ AND /*where*/
    GROUP BY ALL
    UNION ALL
    SELECT /*by:names*/ 0, 0, 0, NULL, NULL, NULL, 0, 0, 0, count(), sum(call_cost)
    FROM
    (
        SELECT
            /*by:names*/
            call_cost,
            lagInFrame(failed) OVER thread AS after_error,
            began - lagInFrame(ended) OVER thread AS gap_ns
        FROM
        (
            SELECT
                /*by:expressions*/
                charges.tenant AS thread_tenant,
                if(charges.session != '', charges.session, charges.trace_id) AS thread_id,
                charges.feature AS thread_feature,
                charges.trace_id AS call_trace,
                charges.span_id AS call_span,
                toUnixTimestamp64Nano(started_at) AS began,
                max(toUnixTimestamp64Nano(ended_at)) AS ended,
                max(charges.status = 'error') AS failed,
                sum(cost_usd) AS call_cost,
                sum(charges.calls) AS standing
            FROM charges
            WHERE /*period*/ AND /*where*/ AND (charges.tenant, thread_id, thread_feature) IN after_errors
            GROUP BY ALL
            HAVING standing > 0
        )
        WINDOW thread AS (PARTITION BY thread_tenant, thread_id, thread_feature ORDER BY began, call_span)
    )
    WHERE after_error AND gap_ns >= 0 AND gap_ns <= 1e9 * {within:Float64}
    GROUP BY ALL
)
GROUP BY ALL
HAVING errors != 0 OR cancelled != 0 OR retries != 0
ORDER BY waste_usd DESC NULLS LAST, errors + cancelled DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
