-- Tables of the writer, emptied with every batch and made anew at every start.
CREATE DATABASE IF NOT EXISTS work;
DROP VIEW IF EXISTS work.normalised;
DROP TABLE IF EXISTS work.otlp_in;
DROP TABLE IF EXISTS work.staged;
DROP TABLE IF EXISTS work.mixed;
DROP TABLE IF EXISTS work.near;
DROP TABLE IF EXISTS work.rivals;
DROP TABLE IF EXISTS work.lost;
DROP TABLE IF EXISTS work.heirs;
CREATE TABLE work.otlp_in ({{envelopes}}) ENGINE = Memory;
CREATE VIEW work.normalised AS {{normalise}};
CREATE TABLE work.staged ENGINE = Memory AS SELECT * FROM work.normalised;
CREATE TABLE work.mixed (tenant String, process String) ENGINE = Memory;
CREATE TABLE work.near ENGINE = Memory AS {{near}} LIMIT 0;
CREATE TABLE work.rivals ENGINE = Memory AS {{rivals}};
CREATE TABLE work.lost (tenant String, trace_id FixedString(16), span_id FixedString(8), stored UInt8) ENGINE = Memory;
CREATE TABLE work.heirs
(
    tenant String, trace_id FixedString(16), span_id FixedString(8),
    customer String, feature String, agent String, team String, user String, session String,
    provider String, request_model String, response_model String, service_tier String
) ENGINE = Memory;
