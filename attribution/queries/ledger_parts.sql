-- What the ledger consists of: the last insert into each month, how many rows there are, and from when until when. Merges of parts change none of
-- it. Inserts are numbered anew when the engine is started on a month that has become empty: it isn't from and until the very same seconds again.
-- Parameter: database.
SELECT hex(sipHash128(arraySort(groupArray((partition_id, last, rows, since, until)))))
FROM
(
    SELECT partition_id, max(max_block_number) AS last, sum(rows) AS rows, min(min_time) AS since, max(max_time) AS until
    FROM system.parts
    WHERE database = {database:String} AND table = 'ledger' AND active
    GROUP BY partition_id
)
