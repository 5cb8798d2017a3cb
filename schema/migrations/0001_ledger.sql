-- The ledger: one row an entry, appended and never changed. Amounts are signed, so that every sum is right.
CREATE TABLE IF NOT EXISTS ledger
(
    entry Enum8('call' = 1, 'void' = 2, 'reprice' = 3, 'allocation' = 4, 'trueup' = 5),
    calls Int8,
    tenant LowCardinality(String),
    customer LowCardinality(String),
    feature LowCardinality(String),
    agent LowCardinality(String),
    team LowCardinality(String),
    user String CODEC(ZSTD(1)),
    session String CODEC(ZSTD(1)),
    service LowCardinality(String),
    environment LowCardinality(String),
    tags Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    provider LowCardinality(String),
    request_model LowCardinality(String),
    response_model LowCardinality(String),
    operation LowCardinality(String),
    service_tier LowCardinality(String),
    streamed Nullable(UInt8) CODEC(ZSTD(1)),
    status Enum8('ok' = 1, 'error' = 2, 'cancelled' = 3) CODEC(ZSTD(1)),
    error_type LowCardinality(String),
    cache_hit LowCardinality(String),
    input_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    cache_read_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    cache_write_5m_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    cache_write_1h_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    output_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    reasoning_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    audio_input_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    audio_output_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    image_input_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
    usage_source Enum8('provider' = 1, 'estimated' = 2, 'partial' = 3, 'missing' = 4, 'none' = 5) CODEC(ZSTD(1)),
    started_at DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    duration_ns UInt64 CODEC(T64, ZSTD(1)),
    ttft_ns Nullable(UInt64) CODEC(T64, ZSTD(1)),
    ttft_kind LowCardinality(String),
    price_id LowCardinality(String),
    cost_usd Nullable(Decimal(18, 12)) CODEC(T64, ZSTD(1)),
    reported_cost_usd Nullable(Decimal(18, 12)) CODEC(T64, ZSTD(1)),
    trace_id FixedString(16) CODEC(NONE),
    span_id FixedString(8) CODEC(NONE),
    parent_span_id FixedString(8) CODEC(ZSTD(1)),
    response_id String CODEC(ZSTD(1)),
    response_key UInt32 CODEC(NONE),
    process LowCardinality(String),
    scope LowCardinality(String),
    layer UInt8 CODEC(ZSTD(1)),
    is_log UInt8 CODEC(ZSTD(1)),
    entered_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    PROJECTION spend
    (
        SELECT
            tenant, toDate(started_at), customer, feature, agent, team,
            sum(calls), sum(cost_usd),
            sum(input_tokens), sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
            sumIf(calls, cost_usd IS NOT NULL), sumIf(input_tokens, cost_usd IS NOT NULL), sumIf(cache_read_tokens, cost_usd IS NOT NULL),
            sumIf(cache_write_5m_tokens, cost_usd IS NOT NULL), sumIf(cache_write_1h_tokens, cost_usd IS NOT NULL),
            sumIf(output_tokens, cost_usd IS NOT NULL)
        GROUP BY tenant, toDate(started_at), customer, feature, agent, team
    )
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(started_at)
-- By the minute, in it as they came: calls of one time come in several batches, and to merge those row by row costs twice as much.
ORDER BY (tenant, toStartOfMinute(started_at))
-- Rows are narrow: merging them column by column costs half as much again.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, enable_vertical_merge_algorithm = 0, merge_selector_base = 8;
