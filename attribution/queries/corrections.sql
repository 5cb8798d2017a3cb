-- Runs that were made, the newest first, and by which other run each was undone. {{…}} is filled by
-- attribution/corrections.py. Parameter: limit.
SELECT
    runs.id AS id,
    toString(kind) AS kind,
    key,
    at,
    author,
    reason,
    book,
    entries,
    cost_usd,
    undone.id AS undone_by,
    runs.undoes AS undoes,
    detail
FROM (SELECT * FROM corrections FINAL WHERE state = 'made') AS runs
LEFT JOIN (SELECT id, undoes FROM corrections FINAL WHERE state = 'made' AND undoes != '') AS undone ON undone.undoes = runs.id
WHERE {{condition}}
ORDER BY at DESC, id
LIMIT {limit:UInt64}
