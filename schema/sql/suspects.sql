-- Of all rivals, those of which two might tell of one call: one answer, parent and child, one trace or process seen by two instrumentations.
-- In a process, spans that name their answer are told apart by it; only where one doesn't, its neighbours are looked at.
-- An answer of the application's cache is told of once, inside of whatever else the process does at that moment: it is nobody's rival.
SELECT * EXCEPT (response_key, cache_hit)
FROM rivals
WHERE cache_hit = '' AND (response_key IN (SELECT response_key FROM rivals WHERE response_key != 0 GROUP BY response_key HAVING count() > 1)
    OR parent_span_id IN (SELECT span_id FROM rivals)
    OR span_id IN (SELECT parent_span_id FROM rivals)
    OR trace_id IN (SELECT trace_id FROM rivals GROUP BY trace_id HAVING uniqExact(scope, service) > 1)
    OR (tenant, process, model) IN
    (
        SELECT tenant, process, model FROM rivals
        GROUP BY tenant, process, model
        HAVING max(is_log) OR (uniqExact(scope) > 1 AND countIf(response_id = '') > 0)
    ))
ORDER BY begin_ns, end_ns DESC
