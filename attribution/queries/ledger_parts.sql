-- What the ledger consists of: the last insert into each month and how many rows there are. Merges of parts change neither.
SELECT hex(sipHash128(arraySort(groupArray((partition_id, last, rows)))))
FROM
(
    SELECT partition_id, max(max_block_number) AS last, sum(rows) AS rows
    FROM system.parts
    WHERE database = currentDatabase() AND table = 'ledger' AND active
    GROUP BY partition_id
)
