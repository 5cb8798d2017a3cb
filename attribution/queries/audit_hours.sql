-- By service and hour of receipt: emitted (as collectors tell; NULL where none does), lost in the service's own processes, received, and of that
-- calls, dropped and rejected; untold: received from senders that tell nothing. Parameter: since.
WITH
batches AS (/*batches*/),
told AS
(
    SELECT
        t.service AS service,
        toStartOfHour(t.at) AS hour,
        sum(t.ended - t.before_ended) AS emitted,
        sum(t.lost - t.before_lost) AS lost
    FROM
    (
        SELECT
            service, at, ended, lost,
            lagInFrame(ended, 1, toInt64(0)) OVER earlier AS before_ended,
            lagInFrame(lost, 1, toInt64(0)) OVER earlier AS before_lost
        FROM
        (
            SELECT
                c.collector AS collector, c.batch AS batch, any(c.service) AS service, min(c.received_at) AS at, toInt64(max(c.ended)) AS ended,
                toInt64(max(c.lost)) AS lost
            FROM (/*collectors*/) AS c
            GROUP BY c.collector, c.batch
        )
        WINDOW earlier AS (PARTITION BY collector ORDER BY batch ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ) AS t
    WHERE t.at >= {since:DateTime64(3, 'UTC')}
    GROUP BY service, hour
)
SELECT
    p.service AS service,
    p.hour AS hour,
    sum(p.emitted) AS emitted,
    sum(p.lost) AS lost,
    sum(p.received) AS received,
    sum(p.calls) AS calls,
    greatest(0, toInt64(received) - toInt64(calls) - toInt64(rejected)) AS dropped,
    sum(p.rejected) AS rejected,
    sum(p.untold) AS untold
FROM
(
    SELECT
        b.service AS service, toStartOfHour(b.received_at) AS hour, CAST(NULL, 'Nullable(Int64)') AS emitted, toInt64(0) AS lost, sum(b.spans) AS received,
        sum(b.calls) AS calls, sum(b.rejected) AS rejected, sumIf(b.spans, b.collector = '') AS untold
    FROM batches AS b
    GROUP BY service, hour
    UNION ALL
    SELECT told.service, told.hour, told.emitted, told.lost, 0, 0, 0, 0 FROM told
) AS p
GROUP BY service, hour
ORDER BY hour, service
