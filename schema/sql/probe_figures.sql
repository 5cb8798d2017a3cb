-- The view that users query: figures of probes' runs. Rows are seen by who sees everybody's alone (the tables' row filter).
-- The columns are described in attribution/meanings.py and docs/charges.md.
CREATE OR REPLACE VIEW probe_figures AS
SELECT
    runs.probe AS probe,
    runs.entry AS entry,
    runs.engine AS engine,
    runs.version AS version,
    runs.model AS model,
    runs.quantisation AS quantisation,
    runs.state AS state,
    runs.started_at AS started_at,
    runs.ended_at AS ended_at,
    runs.workload AS workload,
    runs.id AS run,
    results.stage AS stage,
    results.load AS load,
    results.valid AS valid,
    results.request_group AS request_group,
    results.name AS name,
    results.unit AS unit,
    results.value AS value,
    results.low AS low,
    results.high AS high,
    results.n AS n,
    results.method AS method
FROM (SELECT * FROM probe_results FINAL) AS results
INNER JOIN (SELECT * FROM probe_runs FINAL) AS runs ON results.run = runs.id AND results.revision = runs.revision
