-- Tables whose rows are moved with a ledger: all that keep what was entered. What is only about this store isn't: its migrations, its writers' turns, and
-- what they remember of the last two days. Of a cluster the tables stand in a database of their own.
SELECT name, engine_full, partition_key, sorting_key, create_table_query
FROM system.tables
WHERE database IN (currentDatabase(), concat(currentDatabase(), '_shard')) AND engine LIKE '%MergeTree'
    AND name NOT IN ('migrations', 'turns', 'instrumentations', 'moves')
ORDER BY name
