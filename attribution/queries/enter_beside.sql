-- All entries of a run into the ledger, if the turn is still ours ({{ours}}). {{…}} is filled by attribution/runs.py.
INSERT INTO ledger
SELECT * FROM {{beside}} WHERE {{ours}}
SETTINGS max_insert_block_size = 1048576, max_partitions_per_insert_block = 0, max_memory_usage = 2000000000
