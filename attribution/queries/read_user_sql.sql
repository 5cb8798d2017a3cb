-- A user's query as the engine reads it, without running it: written anew, that text as a tree, and the database's names.
WITH formatQuerySingleLine({query:String}) AS text
SELECT
    text,
    parseQueryToJSON(text) AS tree,
    currentDatabase() AS database,
    (SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase()) AS tables
