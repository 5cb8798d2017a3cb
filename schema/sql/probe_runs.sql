-- Runs, the newest first: those that were begun before the run `before`, '' for all. What a filter is '' for isn't filtered.
SELECT
    id, probe, entry, engine, version, model, quantisation, state, started_at, ended_at, workload, failure, pushed_at
FROM probe_runs FINAL
WHERE ({probe:String} = '' OR probe = {probe:String}) AND ({entry:String} = '' OR entry = {entry:String})
    AND ({engine:String} = '' OR engine = {engine:String}) AND ({model:String} = '' OR model = {model:String})
    AND ({state:String} = '' OR state = {state:String})
    AND started_at >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
    AND ({before:String} = '' OR (started_at, id) < (SELECT (started_at, id) FROM probe_runs FINAL WHERE id = {before:String}))
ORDER BY started_at DESC, id DESC
LIMIT {limit:UInt32}
