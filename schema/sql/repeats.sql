-- Whether anything in the batch, or near it in the ledger, has a trace or an answer in common with anything else of the batch.
SELECT
    (SELECT count() FROM work.near) > 0
    OR uniqExact(trace_id) < count()
    OR uniqExactIf(response_key, response_key != 0) < countIf(response_key != 0)
    OR max(is_log)
FROM work.staged
WHERE problem = ''
