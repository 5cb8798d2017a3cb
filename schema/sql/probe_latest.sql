-- How each probe's engines stand: state and start of the last run, and of the last one that is valid the figures of its best stage: that with the most
-- goodput, without a target that with the most output. Prices: those entered last from a run of theirs. Of the hundred that ran last.
WITH
    runs AS (SELECT id, revision, probe, entry, state, started_at FROM probe_runs FINAL),
    latest AS (
        SELECT probe, entry, argMax(state, (started_at, id)) AS state, max(started_at) AS last_at
        FROM runs GROUP BY probe, entry ORDER BY last_at DESC LIMIT 100
    ),
    sound AS (
        SELECT probe, entry, argMax((id, revision), (started_at, id)) AS run FROM runs WHERE state = 'done' GROUP BY probe, entry
    ),
    stages AS (
        SELECT
            (run, revision) AS of,
            maxIf(value, name = 'good_requests_per_s') AS goodput,
            maxIf(value, name = 'output_tokens_per_s') AS output,
            maxIf(value, name = 'ttft_p50') AS ttft_p50,
            maxIf(value, name = 'ttft_p95') AS ttft_p95,
            maxIf(value, name = 'tpot_p50') AS tpot_p50,
            maxIf(value, name = 'tpot_p95') AS tpot_p95
        FROM probe_results FINAL
        WHERE valid = 1 AND request_group = '' AND (run, revision) IN (SELECT run FROM sound)
        GROUP BY run, revision, stage
    ),
    best AS (
        SELECT of, argMax((goodput, output, ttft_p50, ttft_p95, tpot_p50, tpot_p95), (ifNull(goodput, 0), ifNull(output, 0))) AS figures
        FROM stages GROUP BY of
    ),
    prices AS (
        SELECT
            runs.probe AS probe, runs.entry AS entry,
            argMax((toNullable(p.input), toNullable(p.cache_read), toNullable(p.output)), p.entered_at) AS usd
        FROM measured_prices AS p INNER JOIN runs ON p.run = runs.id
        GROUP BY probe, entry
    )
SELECT
    latest.probe AS probe, latest.entry AS entry, latest.state AS state, toUnixTimestamp(latest.last_at) AS last_s,
    best.figures.1 AS goodput, best.figures.2 AS output, best.figures.3 AS ttft_p50, best.figures.4 AS ttft_p95, best.figures.5 AS tpot_p50,
    best.figures.6 AS tpot_p95, prices.usd.1 AS input_usd, prices.usd.2 AS cache_read_usd, prices.usd.3 AS output_usd
FROM latest
LEFT JOIN sound ON latest.probe = sound.probe AND latest.entry = sound.entry
LEFT JOIN best ON sound.run = best.of
LEFT JOIN prices ON latest.probe = prices.probe AND latest.entry = prices.entry
ORDER BY probe, entry
