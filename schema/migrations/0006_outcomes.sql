-- What came of calls, as POST /v1/outcomes was told. The same id of the same tenant again replaces what was told before: read with FINAL.
CREATE TABLE IF NOT EXISTS reported_outcomes
(
    tenant LowCardinality(String),
    id String,
    at DateTime64(9, 'UTC'),
    outcome LowCardinality(String),
    success UInt8,
    revenue_usd Nullable(Decimal(18, 12)),
    customer LowCardinality(String),
    feature LowCardinality(String),
    agent LowCardinality(String),
    session String,
    trace_id String,
    tags Map(LowCardinality(String), String),
    entered_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(entered_at)
ORDER BY (tenant, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
