-- Ledgers that were moved here (`tallystick migrate --to`), by host and directory: a row when it begins, and one when everything of it was found here
-- (read with FINAL). calls, cost_usd: of the directory's ledger; hash: of all its rows, as schema/sql/move_digest.sql adds them up.
CREATE TABLE IF NOT EXISTS moves
(
    source String,
    began_at DateTime64(3, 'UTC'),
    at DateTime64(3, 'UTC'),
    state Enum8('moving' = 1, 'moved' = 2),
    rows UInt64,
    entries UInt64,
    calls Int64,
    cost_usd Nullable(Decimal(38, 12)),
    hash String
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (source, began_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
