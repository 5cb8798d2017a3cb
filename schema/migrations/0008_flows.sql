-- The loss ledger: what came, from where, and what became of it. A row for each payload and resource in it, and one for each message that
-- was set aside (a dead letter, or without spans), under its coordinates: what comes again replaces what was said of it before.
--
-- Where from: source (`http`: by OTLP into the process that entered it; else a topic, with partition and offset), receiver (the process that
-- took it by OTLP; of `http` the writer), number (of its payloads, from 1), accepted (spans that it had promised to keep before this payload).
-- collector (the process that sent it), batch, ended, lost: what that told, docs/decisions/0009. "" and 0: nobody told.
-- first: id of the resource's first span, as a number; with collector, batch and spans it tells what was sent twice.
-- What became of it: spans, of them calls and rejected (beside the first row of a service in the payload). entered, earliest: on one row of each
-- batch, how many calls were new, and when the first call started. aside: why it wasn't entered.
CREATE TABLE IF NOT EXISTS flows
(
    source LowCardinality(String),
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD(1)),
    receiver LowCardinality(String),
    number UInt64 CODEC(Delta, ZSTD(1)),
    accepted UInt64 CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String),
    service LowCardinality(String),
    collector LowCardinality(String),
    batch UInt64 CODEC(T64, ZSTD(1)),
    ended UInt64 CODEC(T64, ZSTD(1)),
    lost UInt64 CODEC(T64, ZSTD(1)),
    first UInt64 CODEC(NONE),
    spans UInt64 CODEC(T64, ZSTD(1)),
    calls UInt64 CODEC(T64, ZSTD(1)),
    rejected UInt64 CODEC(T64, ZSTD(1)),
    entered UInt64 CODEC(T64, ZSTD(1)),
    earliest DateTime('UTC') CODEC(Delta, ZSTD(1)),
    aside LowCardinality(String),
    entered_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(entered_at)
PARTITION BY toMonday(received_at)
ORDER BY (toStartOfHour(received_at), source, partition, offset, receiver, number, service, collector, batch)
TTL toDateTime(received_at) + toIntervalDay(90)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1, min_bytes_for_wide_part = 134217728;
