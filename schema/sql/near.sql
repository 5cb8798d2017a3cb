-- Rows of the ledger that a batch may repeat or tell of again: of the same trace, with the same answer, or of a process that meters in two
-- ways ({{processes}}). Two spans of one call start within {{within_s}} seconds of each other.
INSERT INTO work.near
WITH (SELECT (min(started_at), max(started_at)) FROM work.staged WHERE problem = '') AS period
SELECT * FROM ledger
PREWHERE tenant IN (SELECT tenant FROM work.staged)
    AND started_at >= subtractSeconds(period.1, {{within_s}}) AND started_at <= addSeconds(period.2, {{within_s}})
    AND (trace_id IN (SELECT trace_id FROM work.staged)
        OR response_key IN (SELECT response_key FROM work.staged WHERE response_key != 0)
        {{processes}})
-- Keys of answers are short: two answers may share one.
WHERE response_key = 0 OR trace_id IN (SELECT trace_id FROM work.staged) OR response_id IN (SELECT response_id FROM work.staged) {{processes}}
