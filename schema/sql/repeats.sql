-- Whether anything in the batch, or near it in the ledger, has a trace or an answer in common with anything else of the batch.
SELECT
    (SELECT count() FROM near) > 0
    OR uniqExact(reinterpretAsUInt64(trace_id)) < count()
    OR uniqExactIf(cityHash64(response_id), response_id != '') < countIf(response_id != '')
    OR max(is_log)
FROM staged
WHERE problem = ''
