-- What a period came to, as it was known at the end of a day, and what has been entered since, by kind.
--
-- definition:
-- * known_on: a day (UTC); all that was entered until its end is known
-- * calls, cost_usd: of the entries of the period that were known then; NULL where nothing was priced
-- * late_usd: cost of calls entered later (spans that came late)
-- * void_usd: cost taken back later from calls that were entered twice
-- * reprice_usd, allocation_usd, trueup_usd: later entries of that kind; undoing one is an entry of its kind
-- * calls_since: calls entered later, less those taken back
-- * now_usd: of all entries of the period; it is cost_usd and the five amounts after it, to the last decimal
-- parameters:
-- * since time = 30d: from when on the calls began
-- * until time = end of today: before when they began
-- * where filters: only entries that have these values
-- * on time = 1970-01-01: this day alone; unless given, every day on which entries were made
-- * limit count = 400: most rows, the latest days
-- example: tallystick ask as-known --since 2026-10-01 --until 2026-11-01
SELECT DISTINCT
    known_on,
    known_calls AS calls,
    if(known_priced > 0, known_cost, NULL) AS cost_usd,
    all_late - known_late AS late_usd,
    all_void - known_void AS void_usd,
    all_reprice - known_reprice AS reprice_usd,
    all_allocation - known_allocation AS allocation_usd,
    all_trueup - known_trueup AS trueup_usd,
    all_calls - known_calls AS calls_since,
    if(all_priced > 0, all_cost, NULL) AS now_usd
FROM
(
    SELECT
        known_on,
        sum(day_calls) OVER known AS known_calls,
        sum(day_priced) OVER known AS known_priced,
        sum(day_cost) OVER known AS known_cost,
        sum(day_late) OVER known AS known_late,
        sum(day_void) OVER known AS known_void,
        sum(day_reprice) OVER known AS known_reprice,
        sum(day_allocation) OVER known AS known_allocation,
        sum(day_trueup) OVER known AS known_trueup,
        sum(day_calls) OVER () AS all_calls,
        sum(day_priced) OVER () AS all_priced,
        sum(day_cost) OVER () AS all_cost,
        sum(day_late) OVER () AS all_late,
        sum(day_void) OVER () AS all_void,
        sum(day_reprice) OVER () AS all_reprice,
        sum(day_allocation) OVER () AS all_allocation,
        sum(day_trueup) OVER () AS all_trueup
    FROM
    (
        SELECT
            toDate(entered_at) AS known_on,
            sum(calls) AS day_calls,
            countIf(cost_usd IS NOT NULL) AS day_priced,
            sum(ifNull(cost_usd, 0)) AS day_cost,
            sumIf(ifNull(cost_usd, 0), entry = 'call') AS day_late,
            sumIf(ifNull(cost_usd, 0), entry = 'void') AS day_void,
            sumIf(ifNull(cost_usd, 0), entry = 'reprice') AS day_reprice,
            sumIf(ifNull(cost_usd, 0), entry = 'allocation') AS day_allocation,
            sumIf(ifNull(cost_usd, 0), entry = 'trueup') AS day_trueup
        FROM charges
        WHERE /*period*/ AND /*where*/
        GROUP BY known_on
        UNION ALL
        -- The day that is asked for may be one without entries; 1970-01-01 stands for none.
        SELECT toDate({on:DateTime64(9, 'UTC')}), 0, 0, 0, 0, 0, 0, 0, 0
    )
    WINDOW known AS (ORDER BY known_on)
)
WHERE if(toDate({on:DateTime64(9, 'UTC')}) = toDate(0), known_on != toDate(0), known_on = toDate({on:DateTime64(9, 'UTC')}))
ORDER BY known_on DESC
LIMIT {limit:UInt32}
