-- A run as it was noted last. Parameter: id.
SELECT id, toString(kind) AS kind, key, toString(at) AS at, author, reason, book, detail, cost_usd, undoes
FROM corrections FINAL
WHERE id = {id:String}
