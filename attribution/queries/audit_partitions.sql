-- Offsets of each partition that was read since {since}: the first and the last, and the gaps between, (from, to), the first twenty. A consumer
-- reads a partition in its order and goes back only to what it read: a gap never closes.
SELECT
    o.source AS source,
    o.partition AS partition,
    min(o.offset) AS first_offset,
    max(o.offset) AS last_offset,
    last_offset - first_offset + 1 - toInt64(count()) AS missing_messages,
    arraySlice(groupArrayIf((o.before + 1, o.offset - 1), o.offset > o.before + 1), 1, 20) AS gaps,
    minIf(o.at, o.offset > o.before + 1) AS since_at
FROM
(
    SELECT
        *,
        lagInFrame(offset, 1, offset - 1) OVER (PARTITION BY source, partition ORDER BY offset ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
    FROM
    (
        SELECT f.source AS source, f.partition AS partition, toInt64(f.offset) AS offset, min(f.received_at) AS at
        FROM flows AS f
        WHERE f.source != 'http' AND f.entered_at >= {since:DateTime64(3, 'UTC')}
        GROUP BY f.source, f.partition, f.offset
    )
) AS o
GROUP BY o.source, o.partition
ORDER BY source, partition
