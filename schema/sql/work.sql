-- Tables of the writer, emptied with every batch: of its connection's session, so that writers don't meet and one that dies leaves nothing.
DROP TEMPORARY TABLE IF EXISTS otlp_in;
DROP TEMPORARY TABLE IF EXISTS staged;
DROP TEMPORARY TABLE IF EXISTS mixed;
DROP TEMPORARY TABLE IF EXISTS near;
DROP TEMPORARY TABLE IF EXISTS rivals;
DROP TEMPORARY TABLE IF EXISTS lost;
DROP TEMPORARY TABLE IF EXISTS heirs;
{{otlp_in}};
CREATE TEMPORARY TABLE staged ENGINE = Memory EMPTY AS {{normalise}};
CREATE TEMPORARY TABLE mixed (tenant String, process String) ENGINE = Memory;
CREATE TEMPORARY TABLE near ENGINE = Memory AS {{near}} LIMIT 0;
CREATE TEMPORARY TABLE rivals ENGINE = Memory AS {{rivals}};
CREATE TEMPORARY TABLE lost (tenant String, trace_id FixedString(16), span_id FixedString(8), stored UInt8) ENGINE = Memory;
CREATE TEMPORARY TABLE heirs
(
    tenant String, trace_id FixedString(16), span_id FixedString(8),
    customer String, feature String, agent String, team String, user String, session String,
    provider String, request_model String, response_model String, service_tier String
) ENGINE = Memory;
