-- Which run of corrections made an entry; '' for calls, and for what the writer voids at ingest.
ALTER TABLE ledger ADD COLUMN IF NOT EXISTS correction LowCardinality(String);
-- Runs: one row each (read with FINAL: the last that was written), written as `entering` before the first entry stands in the ledger and as `made` after the
-- last. One that was killed in between is undone at the next start and stands as `dropped`. entries, cost_usd: how many entries it made
-- and their sum.
CREATE TABLE IF NOT EXISTS corrections
(
    id String,
    state Enum8('entering' = 1, 'made' = 2, 'dropped' = 3),
    kind Enum8('reprice' = 1, 'void' = 2, 'allocation' = 3, 'trueup' = 4, 'undo' = 5),
    key String,
    at DateTime64(3, 'UTC'),
    author String,
    reason String,
    book String,
    detail String,
    entries UInt64,
    cost_usd Decimal(38, 12),
    undoes String
)
ENGINE = ReplacingMergeTree
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
