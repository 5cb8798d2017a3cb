-- All figures of a run, in the order of its stages.
SELECT stage, load, valid, request_group, name, unit, value, low, high, n, method
FROM probe_results FINAL
WHERE run = {id:String} AND revision = {revision:String}
ORDER BY stage, request_group, name
