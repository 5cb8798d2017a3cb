-- Dead letters since {since} that weren't entered since, by reason: messages, spans as their headers tell, when the first and the last came.
SELECT aside AS reason, count() AS messages, sum(spans) AS spans, min(received_at) AS first_at, max(received_at) AS last_at
FROM flows FINAL
WHERE aside NOT IN ('', 'empty') AND received_at >= {since:DateTime64(3, 'UTC')}
    AND (source, partition, offset) NOT IN
    (
        SELECT source, partition, offset FROM flows WHERE aside = '' AND source != 'http' AND received_at >= {since:DateTime64(3, 'UTC')}
    )
GROUP BY reason
ORDER BY reason
