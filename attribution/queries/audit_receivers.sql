-- Each receiver whose messages came since {since}, over all its life: missing_messages are numbers that never came before others did;
-- missing_spans are spans that it had promised to keep and that didn't come: as it told with each message, less those that came of the messages
-- before. Messages that it numbered and never promised anything of are missing without missing spans. Dead letters did come.
SELECT
    m.receiver AS receiver,
    max(m.at) AS last_at,
    toInt64(maxIf(m.number, m.at < {horizon:DateTime64(3, 'UTC')})) - toInt64(countIf(m.number > 0 AND m.at < {horizon:DateTime64(3, 'UTC')})) AS missing_messages,
    greatest(0, maxIf(m.accepted - m.came, m.at < {horizon:DateTime64(3, 'UTC')})) AS missing_spans,
    minIf(m.at, m.accepted > m.came) AS since_at,
    min(m.number) > 1 AND min(m.at) < {kept_since:DateTime64(3, 'UTC')} AS is_cut
FROM
(
    SELECT receiver, number, at, accepted, toInt64(sum(spans) OVER (PARTITION BY receiver ORDER BY number)) - toInt64(spans) AS came
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
) AS m
GROUP BY m.receiver
HAVING missing_messages > 0 OR missing_spans > 0
ORDER BY receiver
