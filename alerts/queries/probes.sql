-- Of each probe and entry the newest valid run and those before it that asked the same in the same way, as many as are compared, with a figure of
-- each load. The newest is number 1. Rows without a figure (value NULL) say that there was a run.
WITH
    runs AS (
        SELECT id, revision, probe, entry, workload, started_at
        FROM probe_runs FINAL
        WHERE state = 'done'/*engine*/
    ),
    newest AS (SELECT probe, entry, argMax(workload, (started_at, id)) AS workload FROM runs GROUP BY probe, entry),
    compared AS (
        SELECT
            runs.probe AS probe, runs.entry AS entry, runs.id AS id, runs.revision AS revision, runs.started_at AS started_at,
            row_number() OVER (PARTITION BY runs.probe, runs.entry ORDER BY runs.started_at DESC, runs.id DESC) AS number
        FROM runs INNER JOIN newest ON runs.probe = newest.probe AND runs.entry = newest.entry AND runs.workload = newest.workload
    )
SELECT
    compared.probe AS probe, compared.entry AS entry, compared.number AS number, compared.id AS run,
    toUnixTimestamp64Micro(toDateTime64(compared.started_at, 6, 'UTC')) AS started, figures.load AS load,
    figures.value AS value, figures.low AS low, figures.high AS high
FROM (SELECT * FROM compared WHERE number <= /*most*/) AS compared
LEFT JOIN
    (
        SELECT run, revision, load, value, low, high
        FROM probe_results FINAL
        WHERE name = /*figure*/ AND request_group = '' AND valid = 1 AND value IS NOT NULL
    ) AS figures
    ON compared.id = figures.run AND compared.revision = figures.revision
ORDER BY probe, entry, number, load
