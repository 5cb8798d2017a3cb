-- What a scope's spend is made of: by each dimension alone, in the period so far and in the same stretch of the last one; of each
-- dimension the values that grew most. `dimension` has a 0 bit where the dimension is, the last of /*dimensions*/ lowest.
(
    SELECT
        /*arm*/ AS arm,
        CAST([/*scope*/], 'Array(String)') AS scope,
        grouping(/*dimensions*/) AS dimension,
        CAST([/*dimensions*/], 'Array(String)') AS value,
        sumIf(/*figure*/, started_at >= /*start*/) AS spent,
        sumIf(/*figure*/, started_at < /*start*/) AS before
    FROM ledger
    WHERE /*conditions*/
    GROUP BY GROUPING SETS (/*sets*/)
    ORDER BY ifNull(spent, 0) - ifNull(before, 0) DESC, spent DESC
    LIMIT 10 BY scope, dimension
)
