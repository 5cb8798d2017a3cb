-- What calls cost, and how many succeeded.
SELECT /*value*/ AS value, sum(cost_usd) AS cost, sum(calls) AS n, sumIf(calls, status = 'ok') AS succeeded
FROM ledger
WHERE /*within*//*scope*/
GROUP BY value
