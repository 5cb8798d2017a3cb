-- A batch is one file, not two for each column: creating and syncing two hundred files took as much as writing them. A merge that writes
-- wide parts holds two buffers of a block for each of a hundred columns.
ALTER TABLE ledger MODIFY SETTING min_bytes_for_wide_part = 134217728, max_compress_block_size = 262144;
