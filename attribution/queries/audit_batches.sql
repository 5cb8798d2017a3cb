-- The loss ledger, one row for each payload and resource, whatever was sent or delivered twice: goes into the FROM of the audit's queries.
-- A collector numbers its batches; of halves and parts of one the first span and the number of spans differ. Of others nothing tells, but where
-- their payload stood.
SELECT *
FROM flows FINAL
WHERE aside = '' AND /*conditions*/
ORDER BY entered_at
LIMIT 1 BY
    service,
    if(collector != '', cityHash64(collector, batch, first, spans), cityHash64(source, partition, offset, receiver, number))
