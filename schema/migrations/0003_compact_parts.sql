-- A batch is one file, not two for each column: creating and syncing two hundred files took as much as writing them.
ALTER TABLE ledger MODIFY SETTING min_bytes_for_wide_part = 134217728;
