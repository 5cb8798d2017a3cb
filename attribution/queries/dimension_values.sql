-- Values of a dimension in a period that begin with a prefix, those with the most calls first.
SELECT
    toString(/*expression*/) AS value,
    sum(calls) AS value_calls,
    sum(cost_usd) AS value_cost
FROM charges
WHERE /*conditions*/ AND startsWith(value, {prefix:String})
GROUP BY value
ORDER BY value_calls DESC, value
LIMIT {limit:UInt64}
