-- Each collector that was heard since {since}, over all its life: what it told at last, what arrived of that, and missing: spans that had ended
-- and neither arrived nor were told to be lost. All of them may still wait with the collector, while it lives; of an earlier moment, when
-- fewer were missing, no more than those. So least_missing, of the time since the last gap in its batches and until {horizon}, are lost for sure.
SELECT
    b.service AS service,
    b.collector AS collector,
    max(b.at) AS last_at,
    max(b.ended) AS ended,
    max(b.lost) AS lost,
    sum(b.spans) AS received,
    toInt64(max(b.batch)) - toInt64(count()) AS missing_batches,
    argMax(b.missing, b.batch) AS missing,
    minOrNullIf(b.missing, b.batch >= b.gap_end AND b.at < {horizon:DateTime64(3, 'UTC')}) AS least_missing,
    min(b.batch) > 1 AND min(b.at) < {kept_since:DateTime64(3, 'UTC')} AS is_cut,
    argMin(b.missing, b.batch) AS first_missing,
    max(b.gap_end) AS last_gap_end
FROM
(
    SELECT *, max(if(is_gap, batch, 0)) OVER (PARTITION BY collector) AS gap_end
    FROM
    (
        SELECT
            *,
            toInt64(ended) - toInt64(lost) - toInt64(sum(spans) OVER (PARTITION BY collector ORDER BY batch)) AS missing,
            batch - lagInFrame(batch, 1, 0) OVER (PARTITION BY collector ORDER BY batch ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) > 1 AS is_gap
        FROM
        (
            SELECT
                c.collector AS collector, any(c.service) AS service, c.batch AS batch, min(c.received_at) AS at, max(c.ended) AS ended, max(c.lost) AS lost,
                sum(c.spans) AS spans
            FROM (/*collectors*/) AS c
            GROUP BY c.collector, c.batch
        )
    )
) AS b
GROUP BY b.service, b.collector
HAVING missing > 0 OR lost > 0 OR missing_batches > 0
ORDER BY service, collector
