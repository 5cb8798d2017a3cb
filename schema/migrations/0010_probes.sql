-- Runs of probes, as they were pushed: operators' alone, and no tenant's. A run stands once its row is here, which is written last: its figures and
-- requests are those of the same revision (what was pushed, as a hash). What is pushed again when more is known replaces it: read with FINAL.
-- stages, info: as JSON, whole (probes/figures/summary.py, probes/runs.py). workload: hash of what was asked and how; runs that differ in it aren't compared.
CREATE TABLE IF NOT EXISTS probe_runs
(
    id String,
    revision String,
    probe LowCardinality(String),
    entry LowCardinality(String),
    engine LowCardinality(String),
    version LowCardinality(String),
    model LowCardinality(String),
    quantisation LowCardinality(String),
    state LowCardinality(String),
    started_at DateTime64(9, 'UTC'),
    ended_at Nullable(DateTime64(9, 'UTC')),
    workload String,
    failure String,
    info String CODEC(ZSTD(3)),
    stages String CODEC(ZSTD(3)),
    pushed_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(pushed_at)
ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Figures of a run's stages: docs/probes.md defines each. low, high: its interval; NULL where there is none. request_group: of a cache experiment, else ''.
CREATE TABLE IF NOT EXISTS probe_results
(
    run String,
    revision String,
    stage UInt16,
    load LowCardinality(String),
    valid UInt8,
    request_group LowCardinality(String),
    name LowCardinality(String),
    unit LowCardinality(String),
    value Nullable(Float64),
    low Nullable(Float64),
    high Nullable(Float64),
    n UInt64,
    method LowCardinality(String),
    pushed_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(pushed_at)
ORDER BY (run, revision, stage, request_group, name)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Requests of a run with their raw times, in nanoseconds since its start (probes/records.py). event_…: of each event of the stream.
CREATE TABLE IF NOT EXISTS probe_requests
(
    run String,
    revision String,
    stage UInt16,
    number UInt32,
    started_at DateTime64(9, 'UTC'),
    request_group LowCardinality(String),
    warmup UInt8,
    scheduled_ns Nullable(Int64) CODEC(Delta, ZSTD(1)),
    sent_ns Int64 CODEC(Delta, ZSTD(1)),
    headers_ns Nullable(Int64) CODEC(Delta, ZSTD(1)),
    first_generated_ns Nullable(Int64) CODEC(Delta, ZSTD(1)),
    last_generated_ns Nullable(Int64) CODEC(Delta, ZSTD(1)),
    ended_ns Int64 CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String),
    status Nullable(UInt16),
    error String,
    finish_reason LowCardinality(String),
    input_tokens Nullable(UInt32),
    most_output_tokens UInt32,
    prompt_tokens Nullable(UInt32),
    cached_tokens Nullable(UInt32),
    completion_tokens Nullable(UInt32),
    reasoning_tokens Nullable(UInt32),
    counted_output Nullable(UInt32),
    event_ns Array(Int64) CODEC(Delta, ZSTD(1)),
    event_kind Array(LowCardinality(String)),
    event_characters Array(UInt32) CODEC(T64, ZSTD(1)),
    pushed_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(pushed_at)
ORDER BY (run, revision, stage, number)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
