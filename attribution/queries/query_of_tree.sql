-- The text of a query's tree, as parseQueryToJSON makes them.
SELECT formatQueryFromJSON({tree:String}) AS text
