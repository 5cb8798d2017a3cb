-- One run, as it stands.
SELECT id, revision, state, ended_at IS NOT NULL AS ended, info, stages, pushed_at
FROM probe_runs FINAL
WHERE id = {id:String}
