-- Tokens without a price, and the models that most of them are of.
SELECT
    /*value*/ AS value,
    sum(/*tokens*/) AS total,
    sumIf(/*tokens*/, cost_usd IS NULL) AS unpriced,
    topKWeightedIf(3)(/*model*/, toUInt64(greatest(0, /*tokens*/)), cost_usd IS NULL AND calls > 0) AS models
FROM ledger
WHERE /*within*//*scope*/
GROUP BY value
