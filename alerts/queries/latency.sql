-- Calls that told their time to first token, and those that took longer than an objective, over a window and over its last part.
SELECT
    /*value*/ AS value,
    sum(calls) AS timed,
    sumIf(calls, ttft_ns > /*limit*/) AS slow,
    sumIf(calls, started_at >= /*lately*/) AS timed_lately,
    sumIf(calls, ttft_ns > /*limit*/ AND started_at >= /*lately*/) AS slow_lately
FROM ledger
WHERE ttft_ns IS NOT NULL AND /*within*//*scope*/
GROUP BY value
