-- Whose turn it is to look into the ledger and to enter what follows from it, of writers in several processes (ingest/turns.py). Rows are
-- claims, signs of life of their makers, and how they ended, in the order in which they came; old ones are dropped, and a server that starts has none: whoever held the turn has lost it.
CREATE TABLE IF NOT EXISTS turns
(
    claim String,
    what Enum8('claimed' = 1, 'released' = 2, 'withdrawn' = 3, 'revoked' = 4, 'alive' = 5),
    who String,
    at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = Memory
SETTINGS min_rows_to_keep = 300, max_rows_to_keep = 600;
-- Which instrumentations meter which process: where there are two, a call may be told of twice, to two writers.
CREATE TABLE IF NOT EXISTS instrumentations
(
    tenant String,
    process String,
    instrumentation String,
    told_at DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree(told_at)
ORDER BY (tenant, process, instrumentation)
TTL told_at + INTERVAL 2 DAY;
