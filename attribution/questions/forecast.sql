-- What a month (week, quarter, year) will have cost at its end, from its spend so far and the days before.
--
-- definition:
-- * spent_usd: sum of all entries of the period so far, corrections included; NULL where nothing is priced
-- * forecast_usd: spent_usd + level × the days that lie ahead, each as its weekday usually is. A weekday's usual is the median of its days, each cut at
--   three times their lower median, once 14 days are known; before that all days are alike (the run rate). level: the mean of day / usual,
--   weighted by usual, over the last 7 days (of a run rate: all), peaks cut at three robust standard deviations above the median. The method of budgets
--   (docs/budgets.md). NULL before two whole days are known
-- * low_usd, high_usd: about 80 of 100 ends lie within, as far as the future is like the past: forecast_usd ± Student's t × the standard
--   deviation of day / usual × √(Σ usual² + (Σ usual)² × (1/n + 1/m)) over the days ahead, for a level of n and usuals of m days
-- * method: `weekdays`, `run rate`, or `too little history`
-- * days_known: whole days (UTC) that it rests on, from the first with any spend, at most 28 before the period
-- * days_left: days from `at` until the period's end
-- * per_day_usd: spend of an average day of days_known
-- * tokens_priced: share of the period's tokens so far whose calls have a cost, 0 to 1
-- parameters:
-- * by dimensions = total: what to group by; no times. Each group is forecast by itself: they needn't add up to the whole
-- * period choice week|month|quarter|year = month: that `at` lies in (UTC); weeks begin on Monday
-- * at time = now: the present; what began later is left out
-- * where filters: only entries that have these values
-- * limit count = 100: most rows
-- example: tallystick ask forecast --by customer --param period=month
WITH
    {at:DateTime64(9, 'UTC')} AS present,
    toDate(present) AS today_begins,
    toDate(multiIf(
        {period:String} = 'week', toMonday(present),
        {period:String} = 'quarter', toStartOfQuarter(present),
        {period:String} = 'year', toStartOfYear(present),
        toStartOfMonth(present))) AS first_day,
    toDate(multiIf(
        {period:String} = 'week', addDays(first_day, 7),
        {period:String} = 'quarter', addMonths(first_day, 3),
        {period:String} = 'year', addYears(first_day, 1),
        addMonths(first_day, 1))) AS next_period,
    arrayMap(n -> today_begins + n, range(toUInt32(next_period - today_begins))) AS days_ahead,
    (toUnixTimestamp64Nano(present) - toUnixTimestamp64Nano(toDateTime64(today_begins, 9, 'UTC'))) / 86400e9 AS today_over
SELECT
    /*by:names*/
    if(priced_entries > 0, spent, NULL) AS spent_usd,
    toDecimal128OrNull(toString(round(expected, 6)), 6) AS forecast_usd,
    toDecimal128OrNull(toString(round(expected - least(reach, expected - toFloat64(spent)), 6)), 6) AS low_usd,
    toDecimal128OrNull(toString(round(expected + reach, 6)), 6) AS high_usd,
    multiIf(m < 2, 'too little history', shaped, 'weekdays', 'run rate') AS method,
    m AS days_known,
    length(days_ahead) - today_over AS days_left,
    if(m > 0, toDecimal128OrNull(toString(round(arrayAvg(past), 6)), 6), NULL) AS per_day_usd,
    if(all_tokens > 0, priced_tokens / all_tokens, NULL) AS tokens_priced
FROM
(
    SELECT
        *,
        if(shaped, 7, 1) AS fitted,
        arrayMap(day -> if(shaped, usual[toDayOfWeek(day)], 1), days_ahead) AS whole_ahead,
        arrayMap((weight, at) -> if(at = 1, weight * (1 - today_over), weight), whole_ahead, arrayEnumerate(whole_ahead)) AS ahead,
        arrayMap(day -> if(shaped, usual[toDayOfWeek(day)], 1), past_days) AS weights,
        arrayFilter(x -> x.2 > 0, arrayMap((spend, weight) -> (spend / weight, weight), past, weights)) AS known,
        arrayFilter(x -> x.2 > 0,
            arrayMap((spend, weight) -> (spend / weight, weight), arraySlice(past, -latest), arraySlice(weights, -latest))) AS recent,
        arraySort(arrayMap(x -> x.1, known)) AS known_sorted,
        (known_sorted[intDiv(length(known) + 1, 2)] + known_sorted[intDiv(length(known), 2) + 1]) / 2 AS known_middle,
        arraySort(arrayMap(x -> abs(x.1 - known_middle), known)) AS known_apart,
        1.4826 * (known_apart[intDiv(length(known) + 1, 2)] + known_apart[intDiv(length(known), 2) + 1]) / 2 AS known_deviation,
        arraySort(arrayMap(x -> x.1, recent)) AS recent_sorted,
        (recent_sorted[intDiv(length(recent) + 1, 2)] + recent_sorted[intDiv(length(recent), 2) + 1]) / 2 AS recent_middle,
        arraySort(arrayMap(x -> abs(x.1 - recent_middle), recent)) AS recent_apart,
        1.4826 * (recent_apart[intDiv(length(recent) + 1, 2)] + recent_apart[intDiv(length(recent), 2) + 1]) / 2 AS recent_deviation,
        arrayMap(x -> if(known_deviation > 0, least(x.1, known_middle + 3 * known_deviation), x.1), known) AS known_cut,
        arrayMap(x -> if(recent_deviation > 0, least(x.1, recent_middle + 3 * recent_deviation), x.1), recent) AS recent_cut,
        arraySum((ratio, x) -> ratio * x.2, recent_cut, recent) / arraySum(x -> x.2, recent) AS level,
        if(m >= 2, toFloat64(spent) + greatest(0, level * arraySum(ahead)), NULL) AS expected,
        sqrt(arrayAvg(ratio -> pow(ratio - arrayAvg(known_cut), 2), known_cut) * m / (m - fitted)) AS sigma,
        sqrt(arraySum(x -> x * x, ahead) + pow(arraySum(ahead), 2) * (1 / latest + if(shaped, 1 / m, 0))) AS spread,
        -- The 0.9 quantile of Student's t, by its Cornish-Fisher expansion around the normal's (Abramowitz and Stegun 26.7.5).
        1.2815515655 AS z,
        latest - 1 AS freedom,
        z + (pow(z, 3) + z) / 4 / freedom + (5 * pow(z, 5) + 16 * pow(z, 3) + 3 * z) / 96 / pow(freedom, 2)
        + (3 * pow(z, 7) + 19 * pow(z, 5) + 17 * pow(z, 3) - 15 * z) / 384 / pow(freedom, 3) AS student,
        student * sigma * spread AS reach
    FROM
    (
        SELECT
            *,
            arrayMap(n -> first_spend + n, range(toUInt32(greatest(0, today_begins - first_spend)))) AS past_days,
            arrayMap(day -> if(indexOf(days, day) = 0, 0, spends[indexOf(days, day)]), past_days) AS past,
            length(past) AS m,
            arrayMap(slot ->
                arraySort(arrayFilter((spend, day) -> toDayOfWeek(day) = slot, past, past_days)), range(1, 8)) AS by_weekday,
            arrayMap(sorted -> arrayMap(spend -> least(spend, 3 * sorted[intDiv(length(sorted) + 1, 2)]), sorted), by_weekday) AS cut,
            arrayMap(sorted ->
                (sorted[intDiv(length(sorted) + 1, 2)] + sorted[intDiv(length(sorted), 2) + 1]) / 2, cut) AS usual,
            m >= 14 AND arrayExists(day -> usual[toDayOfWeek(day)] > 0, arraySlice(past_days, -7)) AS shaped,
            if(shaped, 7, m) AS latest
        FROM
        (
            SELECT
                /*by:names*/
                groupArray(day_begins) AS days,
                groupArray(toFloat64(day_cost)) AS spends,
                minIf(day_begins, day_cost > 0) AS first_positive,
                if(max(day_cost) > 0, first_positive, today_begins) AS first_spend,
                sumIf(day_cost, day_begins >= first_day) AS spent,
                sumIf(day_priced, day_begins >= first_day) AS priced_entries,
                sumIf(day_tokens, day_begins >= first_day) AS all_tokens,
                sumIf(day_priced_tokens, day_begins >= first_day) AS priced_tokens
            FROM
            (
                SELECT
                    /*by:expressions*/
                    toDate(started_at) AS day_begins,
                    ifNull(sum(cost_usd), 0) AS day_cost,
                    countIf(cost_usd IS NOT NULL) AS day_priced,
                    sum(
                        ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
                        + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0)) AS day_tokens,
                    sumIf(
                        ifNull(input_tokens, 0) + ifNull(cache_read_tokens, 0) + ifNull(cache_write_5m_tokens, 0)
                        + ifNull(cache_write_1h_tokens, 0) + ifNull(output_tokens, 0), cost_usd IS NOT NULL) AS day_priced_tokens
                FROM charges
                WHERE toDate(started_at) >= first_day - 28 AND started_at < present AND /*where*/
                GROUP BY ALL
            )
            GROUP BY ALL
        )
    )
)
ORDER BY expected DESC NULLS LAST, spent DESC, /*by:names*/ 1
LIMIT {limit:UInt32}
