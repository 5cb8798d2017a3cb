-- Each receiver whose messages came since {since}, over all its life: missing_messages are numbers that never came before others did;
-- missing_spans are spans that it had taken, and not handed back, and that didn't come. It tells so with each message, and counts what is still on
-- its way, which may be handed back yet: the least of the messages since the last gap is what is missing. Numbers of what was handed back are
-- missing without missing spans. Dead letters did come. Messages after {horizon} may still be overtaken by others.
SELECT
    m.receiver AS receiver,
    max(m.at) AS last_at,
    toInt64(max(m.number)) - toInt64(count()) AS missing_messages,
    greatest(0, minIf(m.missing, m.number >= m.gap_end)) AS missing_spans,
    minIf(m.at, m.is_gap) AS since_at,
    min(m.number) > 1 AND min(m.at) < {kept_since:DateTime64(3, 'UTC')} AS is_cut
FROM
(
    SELECT *, max(if(is_gap, number, 0)) OVER (PARTITION BY receiver) AS gap_end
    FROM
    (
        SELECT
            receiver, number, at,
            accepted - toInt64(sum(spans) OVER (PARTITION BY receiver ORDER BY number)) AS missing,
            number - lagInFrame(number, 1, 0) OVER (PARTITION BY receiver ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) > 1 AS is_gap
        FROM
        (
            SELECT r.receiver AS receiver, r.number AS number, min(r.at) AS at, toInt64(max(r.accepted)) AS accepted, sum(r.spans) AS spans
            FROM
            (
                -- A message that was written twice stands at two offsets.
                SELECT f.receiver AS receiver, f.number AS number, min(f.received_at) AS at, max(f.accepted) AS accepted, max(f.spans) AS spans
                FROM flows AS f FINAL
                WHERE f.source != 'http'
                    AND f.receiver IN (SELECT receiver FROM flows WHERE source != 'http' AND receiver != '' AND received_at >= {since:DateTime64(3, 'UTC')})
                GROUP BY f.receiver, f.number, f.service, f.collector, f.batch, f.first
            ) AS r
            GROUP BY r.receiver, r.number
        )
        WHERE at < {horizon:DateTime64(3, 'UTC')}
    )
) AS m
GROUP BY m.receiver
HAVING missing_messages > 0
ORDER BY receiver
