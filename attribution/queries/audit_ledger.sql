-- Calls that were entered since {since} by batches whose calls all started after {floor} (older ones may have been deleted for their age), and how
-- many of the time are there. Rows enter before their batch is told of, and one that was told of no more is there all the same: fewer is a loss.
WITH since_then AS
(
    SELECT sum(f.entered) AS told, min(f.earliest) AS first_started
    FROM flows AS f FINAL
    WHERE f.entered > 0 AND f.earliest >= {floor:DateTime64(3, 'UTC')} AND f.entered_at >= {since:DateTime64(3, 'UTC')}
)
SELECT
    (SELECT told FROM since_then) AS told,
    (
        SELECT count() FROM ledger
        WHERE entry = 'call' AND started_at >= (SELECT first_started FROM since_then)
            AND entered_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 10 MINUTE
    ) AS present
