-- Entries, the newest first, from a place in that order on. Rows that are alike in everything but `key_hash` are alike in all of it: which of them
-- comes first makes no difference. How far back the page can reach is found first, for which one column is read instead of all.
SELECT
    /*columns*/
    toUnixTimestamp64Nano(started_at) AS key_at,
    toInt8(entry) AS key_entry,
    toUnixTimestamp64Milli(entered_at) AS key_entered,
    toString(cityHash64(toString((/*hashed*/)))) AS key_hash
FROM charges
WHERE /*conditions*/
    AND started_at >= (SELECT min(started_at) FROM (SELECT started_at FROM charges WHERE /*older*/ ORDER BY started_at DESC LIMIT {limit:UInt64}))
ORDER BY started_at DESC, trace_id DESC, span_id DESC, key_entry DESC, key_entered DESC, key_hash DESC
LIMIT {limit:UInt64} OFFSET {skip:UInt64}
