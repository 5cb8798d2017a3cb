-- Values that have been silent for a while: their last call, and how many calls there were in as long a stretch after it a day, a week and
-- two weeks earlier. `known` is when the first call of all was, as far back as is looked.
WITH silent AS
(
    SELECT /*value*/ AS value, max(started_at) AS last, min(started_at) AS known
    FROM ledger
    WHERE entry = 'call' AND /*within*//*scope*/
    GROUP BY value
    HAVING last < /*since*/
)
SELECT
    silent.value,
    toUnixTimestamp64Micro(any(silent.last)),
    toUnixTimestamp64Micro(any(silent.known)),
    sumIf(calls, started_at >= silent.last - toIntervalDay(1) AND started_at < silent.last - toIntervalDay(1) + toIntervalSecond(/*after*/)),
    sumIf(calls, started_at >= silent.last - toIntervalDay(7) AND started_at < silent.last - toIntervalDay(7) + toIntervalSecond(/*after*/)),
    sumIf(calls, started_at >= silent.last - toIntervalDay(14) AND started_at < silent.last - toIntervalDay(14) + toIntervalSecond(/*after*/))
FROM (SELECT /*value*/ AS value, started_at, calls FROM ledger WHERE /*within*//*scope*/ AND /*value*/ IN (SELECT value FROM silent)) AS row
INNER JOIN silent ON row.value = silent.value
GROUP BY silent.value
