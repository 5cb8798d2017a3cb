-- How many tokens a call of each model has in a scope, and the most that one had.
SELECT
    /*arm*/ AS arm,
    CAST([/*scope*/], 'Array(String)') AS scope,
    /*model*/ AS model,
    count() AS calls,
    quantilesTDigest(0.25, 0.5, 0.75)(/*tokens*/) AS quartiles,
    max(/*tokens*/) AS most
FROM ledger
WHERE entry = 'call' AND /*conditions*/
GROUP BY /*groups*/
