-- Seconds since the newest payload that is entered was received; NULL where none is of the last week.
SELECT dateDiff('millisecond', maxOrNull(received_at), now64(3)) / 1000 AS age_s
FROM flows
WHERE received_at > now() - INTERVAL 7 DAY AND aside = ''
